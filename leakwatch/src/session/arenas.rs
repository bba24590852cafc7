//! Which mappings of a process are arenas of an allocator above its own.

use super::process::Process;
use super::state::State;
use crate::diagnose::pool::{Arenas, Pool};
use crate::diagnose::rank::Via;
use crate::ledger::{Account, SiteId};
use crate::unwind::Frame;

impl State {
    /// Those that it mapped in the window, by who did; `None` where there are none.
    pub(super) fn arenas(&self, process: &Process) -> Option<Arenas> {
        let accounts = process.ledger.accounts();
        let mut found = accounts.filter_map(|(id, account)| Some((self.pool_of(id, account)?, id)));
        let (pool, first) = found.next()?;
        let sites = found
            .filter(|(other, _)| *other == pool)
            .map(|(_, id)| id)
            .chain([first])
            .collect();
        Some(Arenas { pool, sites })
    }

    fn pool_of(&self, id: SiteId, account: &Account) -> Option<Pool> {
        let site = self.sites.get(id).filter(|site| site.via == Via::Mmap)?;
        let frames = &self.unwinder.stack(site.stack)?.frames;
        let module = |at: usize| match frames.get(at)? {
            Frame::Module { module, .. } => Some(&*self.unwinder.modules().get(*module)?.path),
            Frame::Anonymous { .. } => None,
        };
        // Lengths that differ hardly ever have such a mean.
        let each = account
            .committed_bytes
            .checked_div(account.events)
            .filter(|each| each.checked_mul(account.events) == Some(account.committed_bytes));
        Pool::of_mapping([module(0), module(1)], each)
    }
}
