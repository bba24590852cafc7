//! The state of a round, for who scrapes it.

use super::super::exposition::{Exposed, Snapshot};
use super::super::thresholds::Threshold;
use super::{Watch, own_totals, processor_seconds};

impl Watch {
    pub(super) fn publish(&mut self) {
        let Some(listener) = &self.listener else { return };
        self.own.processor_seconds = processor_seconds();
        self.own.rss_bytes = own_totals().rss;
        let processes = self
            .tracked
            .values()
            .map(|tracked| {
                let thresholds = self.thresholds(&tracked.service);
                let raised: Vec<Threshold> = tracked.raised().collect();
                Exposed {
                    service: tracked.service.name.clone(),
                    cgroup: tracked.service.cgroup.clone(),
                    replica: tracked.service.instance,
                    pid: tracked.subject.pid(),
                    figures: tracked.figures,
                    kind: tracked.judged.map(|judged| judged.kind),
                    rate: tracked.judged.map(|judged| judged.slope),
                    seconds_to_limit: tracked.seconds_to_limit(self.available),
                    baseline_bytes: tracked.baseline.bytes(),
                    alerts: Threshold::ALL
                        .into_iter()
                        .filter(|threshold| thresholds.bound(*threshold, Some(0)).is_some())
                        .map(|threshold| (threshold, raised.contains(&threshold)))
                        .collect(),
                }
            })
            .collect();
        listener.publish(Snapshot {
            processes,
            own: self.own.clone(),
        });
    }
}
