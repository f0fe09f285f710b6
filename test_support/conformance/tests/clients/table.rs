//! The table of combinations: one value of each dimension.

use std::collections::BTreeSet;

/// The values of a dimension.
pub(crate) type Dimension = Vec<String>;

/// The index of a value in each dimension.
pub(crate) type Combination = Vec<usize>;

/// All combinations, in an order that depends on `seed`.
pub(crate) fn all(dimensions: &[Dimension], seed: u64) -> Vec<Combination> {
    let mut combinations = vec![Vec::new()];
    for dimension in dimensions {
        combinations = combinations
            .iter()
            .flat_map(|start: &Combination| {
                (0..dimension.len()).map(|value| [&start[..], &[value]].concat())
            })
            .collect();
    }
    shuffle(&mut combinations, seed);
    combinations
}

/// A small number of combinations in which every two values of different dimensions meet. It need not be the minimum.
pub(crate) fn pairs(dimensions: &[Dimension], seed: u64) -> Vec<Combination> {
    let all = all(dimensions, seed);
    let mut open: BTreeSet<Pair> = all.iter().flat_map(pairs_of).collect();
    let mut chosen = Vec::new();
    while !open.is_empty() {
        let gain = |combination: &&Combination| {
            pairs_of(combination)
                .filter(|pair| open.contains(pair))
                .count()
        };
        let best = all.iter().max_by_key(gain).expect("some pair is open");
        for pair in pairs_of(best) {
            open.remove(&pair);
        }
        chosen.push(best.clone());
    }
    chosen
}

/// Two dimensions, each with a value.
type Pair = ((usize, usize), (usize, usize));

fn pairs_of(combination: &Combination) -> impl Iterator<Item = Pair> + '_ {
    let values = combination.iter().copied().enumerate();
    values.clone().flat_map(move |first| {
        values
            .clone()
            .skip(first.0 + 1)
            .map(move |second| (first, second))
    })
}

/// Fisher-Yates shuffle with a linear congruential generator (Knuth's MMIX).
fn shuffle(combinations: &mut [Combination], seed: u64) {
    let mut state = seed;
    for end in (1..combinations.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let other = usize::try_from(state >> 33).expect("31 bits") % (end + 1);
        combinations.swap(end, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dimensions(lengths: &[usize]) -> Vec<Dimension> {
        let values = |length: &usize| (0..*length).map(|value| value.to_string()).collect();
        lengths.iter().map(values).collect()
    }

    #[test]
    fn all_combinations_are_there_once_in_an_order_of_the_seed() {
        let dimensions = dimensions(&[2, 3, 4]);
        let (first, second) = (all(&dimensions, 1), all(&dimensions, 2));
        assert_ne!(first, second);
        let sorted = |mut combinations: Vec<Combination>| {
            combinations.sort();
            combinations.dedup();
            combinations
        };
        assert_eq!(sorted(first).len(), 24);
        assert_eq!(sorted(second).len(), 24);
    }

    #[test]
    fn each_two_values_meet_in_few_combinations() {
        let dimensions = dimensions(&[3, 3, 3, 13, 4]);
        let chosen = pairs(&dimensions, 7);
        for (one, a) in dimensions.iter().enumerate() {
            for (two, b) in dimensions.iter().enumerate().skip(one + 1) {
                for first in 0..a.len() {
                    for second in 0..b.len() {
                        assert!(chosen.iter().any(|c| c[one] == first && c[two] == second));
                    }
                }
            }
        }
        assert!(chosen.len() <= 60, "{}", chosen.len());
    }
}
