//! Whether a move has cost anything: Welch's test on the rates before and after.

/// The rates of a few ticks.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates(Vec<f64>);

impl Rates {
    pub(super) fn push(&mut self, rate: f64) {
        self.0.push(rate);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len().max(1) as f64
    }

    /// The squared standard error of the mean.
    fn error(&self) -> f64 {
        let (count, mean) = (self.0.len() as f64, self.mean());
        let squares: f64 = self.0.iter().map(|rate| (rate - mean).powi(2)).sum();
        squares / (count - 1.0) / count
    }

    /// Whether `after` is surely lower than this by more than two in a
    /// hundred: so says the upper end of the interval that holds the change in
    /// 95 of 100 cases. What is not sure is not held against a move.
    pub(super) fn is_surely_better_than(&self, after: &Self) -> bool {
        if self.len() < 3 || after.len() < 3 || self.mean() <= 0.0 {
            return false;
        }
        let (e, f) = (self.error(), after.error());
        let freedom = (e + f).powi(2)
            / (e * e / (self.len() - 1) as f64 + f * f / (after.len() - 1) as f64).max(1e-300);
        let change = after.mean() - self.mean() + student(freedom) * (e + f).sqrt();
        change < -0.02 * self.mean()
    }
}

/// The 97.5 % quantile of Student's distribution, within 2 % from two degrees of freedom on.
fn student(freedom: f64) -> f64 {
    let f = freedom.max(2.0);
    1.96 + 2.372 / f + 2.822 / (f * f) + 2.556 / f.powi(3) + 1.5 / f.powi(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(of: &[f64]) -> Rates {
        Rates(of.to_vec())
    }

    #[test]
    fn a_clear_loss_is_one_and_noise_is_none() {
        let before = rates(&[100.0, 102.0, 98.0, 101.0]);
        assert!(before.is_surely_better_than(&rates(&[70.0, 72.0, 69.0, 71.0])));
        assert!(!before.is_surely_better_than(&rates(&[60.0, 130.0, 95.0, 80.0])));
        assert!(!before.is_surely_better_than(&rates(&[104.0, 101.0, 99.0, 103.0])));
        assert!(!before.is_surely_better_than(&rates(&[1.0])), "one tick is not enough");
    }

    #[test]
    fn the_quantiles_are_those_of_the_tables() {
        for (freedom, table) in [(2.0, 4.303), (4.0, 2.776), (10.0, 2.228), (60.0, 2.000)] {
            let found = student(freedom);
            assert!((found / table - 1.0).abs() < 0.02, "{freedom}: {found} and not {table}");
        }
    }
}
