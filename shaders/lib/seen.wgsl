// What nets see of an observation. The op has `d.normalize_obs` and the arguments `normalizer` and `hyper`.

#import lib/core
#import lib/trig

// Word `o` of an observation of `words` words, normalized where asked.
fn seen_of(s: u32, x: f32, o: u32, words: u32) -> f32 {
    if (!d.normalize_obs) { return x; }
    let normalizer = a.normalizer.at + s * a.normalizer.stride + o;
    let hyper = a.hyper.at + s * a.hyper.stride;
    return hold((x - get_f(normalizer)) * get_f(normalizer + words), get_f(hyper + HYPER_OBS_CLIP_LOW),
                get_f(hyper + HYPER_OBS_CLIP_HIGH));
}
