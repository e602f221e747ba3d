//! sin, cos, exp, ln by polynomials: branch-free, no fused multiply-add, the same bits on every instruction set.
