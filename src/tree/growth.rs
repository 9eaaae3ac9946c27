//! Who wants to know in which memory new nodes lie.

use std::{fmt, ptr::NonNull, sync::Arc};

/// Told of the address of a new node when it lies in another stretch of [`GrowthListener::STRETCH_BYTES`] than the one
/// before it: so that the memory behind it can be made ready before it is needed. Called on the thread that creates the
/// node, so it must be quick.
#[derive(Clone)]
pub struct GrowthListener(Arc<dyn Fn(usize) + Send + Sync>);

impl GrowthListener {
    /// Bytes of a stretch, which begins at a multiple of it: a huge page.
    pub const STRETCH_BYTES: usize = 2 << 20;

    /// Calls `listen` with the number of the stretch: its address divided by its length.
    pub fn new(listen: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listen))
    }
}

impl fmt::Debug for GrowthListener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GrowthListener")
    }
}

/// Compares the address of each new node with the one before.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    listener: Option<GrowthListener>,
    stretch: usize,
}

impl Growth {
    pub(crate) fn new(listener: Option<GrowthListener>) -> Self {
        Self { listener, stretch: 0 }
    }

    /// A node has been made there.
    pub(crate) fn note<T>(&mut self, node: NonNull<T>) {
        let stretch = node.addr().get() / GrowthListener::STRETCH_BYTES;
        if stretch != self.stretch {
            self.stretch = stretch;
            if let Some(listener) = &self.listener {
                (listener.0)(stretch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn each_new_stretch_is_told_once() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&told);
        let listener = GrowthListener::new(move |stretch| notes.lock().unwrap().push(stretch));
        let mut growth = Growth::new(Some(listener));
        for address in [4_usize << 20, (4 << 20) + 112, (6 << 20) - 16, 6 << 20, (6 << 20) + 16, 4 << 20] {
            growth.note(NonNull::<u8>::without_provenance(address.try_into().unwrap()));
        }
        assert_eq!(*told.lock().unwrap(), [2, 3, 2]);
    }
}
