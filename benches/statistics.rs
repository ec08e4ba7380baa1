//! Medians and how far they can be trusted.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// How many samples the bootstrap draws.
const DRAWS: usize = 10_000;

/// A median with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) samples: usize,
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// The median of `values` with a percentile bootstrap interval: `values` are drawn again with replacement, and
/// the middle 95 % of the medians of the draws are the interval. `None` without values.
pub(crate) fn estimate(values: &[f64], seed: u64) -> Option<Estimate> {
    let median_of_all = median(&mut values.to_vec())?;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut drawn = vec![0.0; values.len()];
    let mut medians: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            for slot in &mut drawn {
                *slot = values.get(rng.random_range(0..values.len())).copied()?;
            }
            median(&mut drawn)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |share: usize| medians.get((medians.len() * share / 1000).min(medians.len() - 1)).copied();
    Some(Estimate { samples: values.len(), median: median_of_all, low: at(25)?, high: at(975)? })
}

/// The middle value, or the mean of the two middle ones.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(values.len() / 2 - 1)?, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&mut [9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&mut []), None);
    }

    #[test]
    fn the_interval_holds_the_median_and_is_the_same_for_the_same_seed() {
        let values = [1.0, 1.1, 1.2, 1.3, 5.0];
        let estimate_once = estimate(&values, 7).unwrap();
        assert!(estimate_once.low <= estimate_once.median && estimate_once.median <= estimate_once.high);
        assert_eq!(estimate(&values, 7), Some(estimate_once));
        assert!(estimate_once.high - estimate_once.low > 0.1, "{estimate_once:?}");
    }

    #[test]
    fn one_sample_has_no_width_and_none_has_no_estimate() {
        let one = estimate(&[2.0], 1).unwrap();
        assert_eq!((one.samples, one.median, one.low, one.high), (1, 2.0, 2.0, 2.0));
        assert_eq!(estimate(&[], 1), None);
    }
}
