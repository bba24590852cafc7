//! Panics while the screen is drawn on: what they say would be lost with the screen, so it is kept until that is gone. Nor
//! is each of them the end: damaged files make readers panic that are caught.

use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// So many are kept; who panics again and again says nothing new.
const KEPT_MOST: usize = 8;
/// Letters of each.
const LETTERS_MOST: usize = 2000;

static HELD_BACK: AtomicBool = AtomicBool::new(false);
static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());
static HOOK: Once = Once::new();

/// Holds back what panics say until [`release`].
pub fn hold_back() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if HELD_BACK.load(Ordering::SeqCst) {
                keep(panic);
            } else {
                before(panic);
            }
        }));
    });
    HELD_BACK.store(true, Ordering::SeqCst);
}

/// From now on panics are told at once again. What was said meanwhile.
pub fn release() -> Vec<String> {
    HELD_BACK.store(false, Ordering::SeqCst);
    std::mem::take(&mut KEPT.lock().unwrap_or_else(PoisonError::into_inner))
}

fn keep(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?").to_owned();
    let text: String = format!("thread '{name}' {panic}")
        .chars()
        .take(LETTERS_MOST)
        .collect();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < KEPT_MOST {
        kept.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_panic_says_is_kept_until_the_screen_is_gone() {
        hold_back();
        let unwound = std::thread::Builder::new()
            .name("of the test".to_owned())
            .spawn(|| panic!("said in vain"))
            .unwrap()
            .join();
        assert!(unwound.is_err());
        let said = release();
        // Tests beside this one may panic too.
        let own = said.iter().find(|text| text.contains("said in vain"));
        assert!(own.is_some_and(|text| text.contains("of the test")), "{said:?}");
        assert!(release().is_empty());
    }
}
