//! Figures of repeated measurements.

/// The values in order.
pub fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// The value in the middle of sorted ones; not a number when there are none.
pub fn median(values: &[f64]) -> f64 {
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The median of sorted values with the tenth and ninetieth percentiles.
pub fn spread(values: &[f64]) -> String {
    let at = |tenths: usize| values.get(values.len() * tenths / 10).copied().unwrap_or(f64::NAN);
    format!("{:.2} ({:.2}–{:.2})", median(values), at(1), at(9))
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn spread_names_median_and_tenths() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(spread(&values), "50.00 (10.00–90.00)");
    }
}
