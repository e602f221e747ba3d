// Gradient of one minibatch: gather, forward, losses, backward. Twin of src/op/minibatch_grad.rs.
//
// WAY is `minibatch_grad_fused` where the nets' hidden layers fit workgroup memory, and `minibatch_grad_layered`, which
// has all other nets, layer by layer.

#import lib/minibatch
#import WAY
