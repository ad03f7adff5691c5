//! Images that something is being made from, and images that are being removed: never both.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pinfold_types::{Error, ErrorCode, ImageId, Result};

/// Who is at work on which image.
#[derive(Debug, Default)]
pub(crate) struct ImageHolds(Mutex<Holds>);

#[derive(Debug, Default)]
struct Holds {
    making: HashMap<ImageId, u32>,
    removing: HashSet<ImageId>,
}

/// Something is being made from an image, which stays until this is dropped.
#[derive(Debug)]
pub(crate) struct ImageHold {
    holds: Arc<ImageHolds>,
    image: ImageId,
}

/// Images are being removed; nothing new is made from them until this is dropped.
#[derive(Debug)]
pub(crate) struct ImageRemoval {
    holds: Arc<ImageHolds>,
    images: Vec<ImageId>,
}

impl ImageHolds {
    /// Begins to make something from an image.
    pub(crate) fn hold(self: &Arc<Self>, image: ImageId) -> Result<ImageHold> {
        let mut holds = self.lock();
        if holds.removing.contains(&image) {
            return Err(Error::new(ErrorCode::Conflict, format!("image {image} is being removed"))
                .hint("choose another image, or pull it again"));
        }
        *holds.making.entry(image).or_insert(0) += 1;
        Ok(ImageHold { holds: Arc::clone(self), image })
    }

    /// Begins to remove those of the images that nothing is being made from.
    pub(crate) fn remove(self: &Arc<Self>, images: Vec<ImageId>) -> ImageRemoval {
        let mut holds = self.lock();
        let free: Vec<_> = images
            .into_iter()
            .filter(|image| !holds.making.contains_key(image) && holds.removing.insert(*image))
            .collect();
        ImageRemoval { holds: Arc::clone(self), images: free }
    }

    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImageRemoval {
    /// The images that may be removed.
    pub(crate) fn images(&self) -> &[ImageId] {
        &self.images
    }
}

impl Drop for ImageHold {
    fn drop(&mut self) {
        let mut holds = self.holds.lock();
        if let Some(count) = holds.making.get_mut(&self.image) {
            *count -= 1;
            if *count == 0 {
                holds.making.remove(&self.image);
            }
        }
    }
}

impl Drop for ImageRemoval {
    fn drop(&mut self) {
        let mut holds = self.holds.lock();
        for image in &self.images {
            holds.removing.remove(image);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stood_on_is_not_removed_and_what_is_removed_is_not_stood_on() {
        let holds = Arc::new(ImageHolds::default());
        let (a, b) = (ImageId::generate(), ImageId::generate());
        let hold = holds.hold(a).expect("free");
        let removal = holds.remove(vec![a, b]);
        assert_eq!(removal.images(), [b]);
        assert_eq!(holds.hold(b).expect_err("going").code, ErrorCode::Conflict);
        assert!(holds.remove(vec![b]).images().is_empty(), "once is enough");
        drop((hold, removal));
        assert_eq!(holds.remove(vec![a]).images(), [a]);
        holds.hold(b).expect("still there");
    }
}
