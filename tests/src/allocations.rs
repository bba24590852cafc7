//! What a recording says of births and of what survived, and the sums that hold of it.

use serde::Deserialize;

use crate::recording::Recording;

/// How births were watched.
#[derive(Clone, Debug, Deserialize)]
pub struct Allocations {
    pub method: String,
    pub bursts: u64,
    pub watched_seconds: f64,
    pub hits: u64,
    pub births: u64,
    pub sampling_rate: f64,
    pub followed: u64,
    pub checks: u64,
    pub cost_seconds: f64,
    /// `None` where they may cost anything.
    pub budget_seconds: Option<f64>,
    pub target_cpu_seconds: Option<f64>,
    /// Whether call sites of the heap rest on births.
    pub tell: bool,
    pub unnamed_bytes: i64,
    pub shrunk_bytes: i64,
    #[serde(default)]
    pub unnamed: Vec<UnnamedClass>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct UnnamedClass {
    pub bytes: u64,
    pub chunk_bytes: u64,
    pub growth_bytes: i64,
}

/// Of one call site.
#[derive(Clone, Debug, Deserialize)]
pub struct SiteAllocations {
    pub blocks: u64,
    pub births: u64,
    pub born_blocks: u64,
    pub born_bytes: u64,
    pub followed: u64,
    pub survived: u64,
    pub young: u64,
    pub doubtful: u64,
    pub median_age_seconds: Option<f64>,
    pub oldest_age_seconds: Option<f64>,
    #[serde(default)]
    pub classes: Vec<SiteClass>,
    #[serde(default)]
    pub functions: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct SiteClass {
    /// The largest request that such a chunk serves.
    pub bytes: u64,
    pub chunk_bytes: u64,
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    #[serde(default)]
    pub mapped: bool,
    pub blocks: u64,
    pub live_bytes: u64,
    pub survivors: u64,
}

/// The probes were paid for out of the budget: by more than a fifth, or a millisecond, it was not overdrawn.
///
/// # Errors
/// By what.
pub fn within_budget(allocations: &Allocations) -> Result<(), String> {
    let cost = allocations.cost_seconds;
    let budget = allocations.budget_seconds.ok_or("there was no budget")?;
    if !(cost.is_finite() && budget.is_finite() && cost >= 0.0 && budget > 0.0) {
        return Err(format!("a cost of {cost} s on a budget of {budget} s"));
    }
    if cost > budget * 1.2 + 0.001 {
        return Err(format!("{cost} s were spent on a budget of {budget} s"));
    }
    Ok(())
}

/// The counts of a recording that cannot be otherwise: of each stage no more than of the one before it.
///
/// # Errors
/// What is wrong, and where.
pub fn adds_up(recording: &Recording) -> Result<(), String> {
    let allocations = recording.allocations.as_ref().ok_or("births were not watched")?;
    if allocations.followed > allocations.births || allocations.births > allocations.hits {
        return Err(format!("more was followed than born, or hit: {allocations:?}"));
    }
    if !(0.0..=1.0).contains(&allocations.sampling_rate) {
        return Err(format!("a sampling rate of {}", allocations.sampling_rate));
    }
    if allocations.watched_seconds > recording.window.duration_seconds {
        return Err(format!("watched for longer than the window: {allocations:?}"));
    }
    if allocations.shrunk_bytes > 0 {
        return Err(format!("{} bytes shrunk", allocations.shrunk_bytes));
    }
    let unnamed: i64 = allocations.unnamed.iter().map(|class| class.growth_bytes).sum();
    if unnamed != allocations.unnamed_bytes {
        return Err(format!(
            "unnamed classes are {unnamed} bytes, the sum says {}",
            allocations.unnamed_bytes
        ));
    }
    for site in &recording.call_sites {
        let Some(blocks) = &site.allocations else {
            if site.evidence == "survivors" {
                return Err(format!(
                    "{} rests on survivors, and none of its births was seen",
                    site.label
                ));
            }
            continue;
        };
        if blocks.followed > blocks.births
            || blocks.survived > blocks.followed
            || blocks.young > blocks.survived
            || blocks.doubtful > blocks.survived
        {
            return Err(format!(
                "more of {} survived than were born: {blocks:?}",
                site.label
            ));
        }
    }
    Ok(())
}

/// What the arenas' blocks in use grew by is what call sites have of it, what nobody is known for, and what became
/// less. A row may be rounded, by a byte at most.
///
/// # Errors
/// The sums.
pub fn heap_closes(recording: &Recording) -> Result<(), String> {
    let allocations = recording.allocations.as_ref().ok_or("births were not watched")?;
    let growth = recording.heap.as_ref().and_then(|heap| heap.growth);
    let growth = growth.ok_or_else(|| format!("no census at both ends: {:?}", recording.heap_not_taken))?;
    let sites = recording
        .call_sites
        .iter()
        .filter_map(|site| site.allocations.as_ref());
    let classes: Vec<&SiteClass> = sites
        .flat_map(|site| &site.classes)
        .filter(|class| !class.mapped)
        .collect();
    let named: u64 = classes.iter().map(|class| class.live_bytes).sum();
    let told =
        i64::try_from(named).unwrap_or(i64::MAX) + allocations.unnamed_bytes + allocations.shrunk_bytes;
    if told.abs_diff(growth.in_use_bytes) > classes.len() as u64 {
        return Err(format!(
            "{} bytes more are in use, and told are {named} by call site + {} unnamed + {} shrunk = {told}",
            growth.in_use_bytes, allocations.unnamed_bytes, allocations.shrunk_bytes
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cost: f64, budget: f64) -> Allocations {
        Allocations {
            method: "multi".to_owned(),
            bursts: 3,
            watched_seconds: 0.1,
            hits: 100,
            births: 50,
            sampling_rate: 1.0,
            followed: 40,
            checks: 2,
            cost_seconds: cost,
            budget_seconds: Some(budget),
            target_cpu_seconds: None,
            tell: true,
            unnamed_bytes: 48,
            shrunk_bytes: 0,
            unnamed: vec![UnnamedClass {
                bytes: 24,
                chunk_bytes: 32,
                growth_bytes: 48,
            }],
        }
    }

    fn recording(allocations: Allocations) -> Recording {
        let text = include_str!("../fixtures/recording.json");
        let mut recording = Recording::parse(text).unwrap();
        recording.allocations = Some(allocations);
        recording
    }

    #[test]
    fn an_overdrawn_budget_is_refused() {
        assert_eq!(within_budget(&with(0.1, 0.1)), Ok(()));
        assert!(within_budget(&with(0.15, 0.1)).unwrap_err().contains("budget"));
        assert!(within_budget(&with(f64::NAN, 0.1)).is_err());
    }

    #[test]
    fn counts_that_cannot_be_are_refused() {
        assert_eq!(adds_up(&recording(with(0.1, 0.1))), Ok(()));
        let mut wrong = with(0.1, 0.1);
        wrong.followed = 60;
        assert!(adds_up(&recording(wrong)).unwrap_err().contains("followed"));
        let mut wrong = with(0.1, 0.1);
        wrong.unnamed_bytes = 0;
        assert!(adds_up(&recording(wrong)).unwrap_err().contains("unnamed"));
        let mut nobody = recording(with(0.1, 0.1));
        nobody.call_sites[0].evidence = "survivors".to_owned();
        assert!(adds_up(&nobody).unwrap_err().contains("survivors"));
    }
}
