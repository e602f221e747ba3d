//! A sum tree of sixteen children to a node, over the priorities of a replay ring.
//!
//! Sixteen f32 are a cache line and a vector, so a level is one load, and a million leaves are five levels. A node is
//! computed anew from its children, always in the same order, never moved by a difference: it neither drifts nor depends
//! on the order of updates.

use super::simd::sum16;

/// Children of a node.
pub const CHILDREN: usize = 16;

/// Where the levels of a tree over `leaves` leaves begin, and how many nodes each has, leaves first; every level is
/// padded to whole nodes, and the last has one.
pub fn levels(leaves: usize) -> Vec<(usize, usize)> {
    let mut levels = vec![(0, leaves.next_multiple_of(CHILDREN))];
    while let Some(&(start, len)) = levels.last()
        && len > CHILDREN
    {
        levels.push((start + len, (len / CHILDREN).next_multiple_of(CHILDREN)));
    }
    levels
}

/// Words of a tree over `leaves` leaves.
pub fn len(leaves: usize) -> usize {
    levels(leaves).iter().map(|(_, len)| len).sum()
}

fn children(tree: &[f32], at: usize) -> &[f32; CHILDREN] {
    tree[at..at + CHILDREN].try_into().expect("a node has all its children")
}

/// Brings the sums above a leaf up to date.
pub fn update(tree: &mut [f32], levels: &[(usize, usize)], leaf: usize) {
    let mut at = leaf;
    for pair in levels.windows(2) {
        at /= CHILDREN;
        tree[pair[1].0 + at] = sum16(children(tree, pair[0].0 + at * CHILDREN));
    }
}

/// Computes every sum anew from the leaves.
pub fn rebuild(tree: &mut [f32], levels: &[(usize, usize)]) {
    for pair in levels.windows(2) {
        for node in 0..pair[0].1 / CHILDREN {
            tree[pair[1].0 + node] = sum16(children(tree, pair[0].0 + node * CHILDREN));
        }
    }
}

/// The sum of all leaves.
pub fn total(tree: &[f32], levels: &[(usize, usize)]) -> f32 {
    sum16(children(tree, levels.last().expect("a tree has a level").0))
}

/// The leaf in which `at` (0 to the total) lies, when leaves are laid end to end in order. Where rounding leads past the
/// last child, the last one that is not empty takes what is left.
pub fn find(tree: &[f32], levels: &[(usize, usize)], mut at: f32) -> usize {
    let mut node = 0;
    for &(start, _) in levels.iter().rev() {
        let sums = children(tree, start + node * CHILDREN);
        let (mut before, mut chosen, mut below) = (0.0, 0, 0.0);
        for (child, &sum) in sums.iter().enumerate() {
            if sum > 0.0 && before <= at {
                (chosen, below) = (child, before);
            }
            before += sum;
        }
        at -= below;
        node = node * CHILDREN + chosen;
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(leaves: &[f32]) -> (Vec<f32>, Vec<(usize, usize)>) {
        let levels = levels(leaves.len());
        let mut tree = vec![0.0; len(leaves.len())];
        tree[..leaves.len()].copy_from_slice(leaves);
        (0..leaves.len()).for_each(|leaf| update(&mut tree, &levels, leaf));
        (tree, levels)
    }

    #[test]
    fn every_place_finds_its_leaf() {
        for count in [1, 15, 16, 17, 300, 5_000] {
            let leaves: Vec<f32> = (0..count).map(|i| ((i * 7 + 1) % 5) as f32).collect();
            let (tree, levels) = build(&leaves);
            let sum: f32 = leaves.iter().sum();
            assert_eq!(total(&tree, &levels), sum, "small whole numbers add up exactly");
            let mut before = 0.0;
            for (leaf, &p) in leaves.iter().enumerate().filter(|(_, p)| **p > 0.0) {
                assert_eq!(find(&tree, &levels, before), leaf);
                assert_eq!(find(&tree, &levels, before + 0.75 * p), leaf);
                before += p;
            }
            let last = leaves.iter().rposition(|p| *p > 0.0).unwrap();
            assert_eq!(find(&tree, &levels, 2.0 * sum), last, "past the end the last leaf is found");
        }
    }
}
