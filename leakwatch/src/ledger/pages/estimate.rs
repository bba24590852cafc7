//! From sampled pages to how many there are.

/// An estimate from a sample, in base pages.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    pub pages: f64,
    /// Square of the standard error.
    pub variance: f64,
}

impl Estimate {
    /// Adds a sampled page of a weight (base pages) that was in the sample with a chance of 1 in `stands_for`.
    #[expect(clippy::cast_precision_loss, reason = "page counts stay far under 2^52")]
    pub fn add(&mut self, weight: u32, stands_for: u64) {
        let (weight, inverse) = (f64::from(weight), stands_for as f64);
        self.pages += weight * inverse;
        // A page of the population is in the sample or not, by a coin with the rate r: its term has the variance
        // w^2 (1 - r) / r, and each sampled one stands for 1 / r of them.
        self.variance += weight * weight * inverse * (inverse - 1.0);
    }

    /// Adds another estimate from the same sample, of other pages.
    pub fn join(&mut self, other: Self) {
        self.pages += other.pages;
        self.variance += other.variance;
    }

    /// Standard error, in base pages. 0 when nothing was left out.
    #[must_use]
    pub fn standard_error(&self) -> f64 {
        self.variance.sqrt()
    }
}
