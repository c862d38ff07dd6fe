//! Random numbers that are the same in every run.

/// A generator.
///
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
/// Generators" (SplitMix64), OOPSLA 2014.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins at `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns a number from 0 up to 1.
    pub fn part(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number between the two, each order of magnitude as likely.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.part())
    }

    /// Returns one of these.
    pub fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[(self.part() * these.len() as f64) as usize]
    }

    /// Returns a number with this mean and this deviation as a part of it, lognormal.
    pub fn around(&mut self, mean: f64, spread: f64) -> f64 {
        if mean <= 0.0 || spread <= 0.0 {
            return mean.max(0.0);
        }
        let variance = (1.0 + spread * spread).ln();
        let (u, v) = (1.0 - self.part(), self.part());
        let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
        mean * (normal * variance.sqrt() - variance / 2.0).exp()
    }
}
