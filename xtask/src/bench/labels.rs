//! Finds places for the labels of a picture: beside their points, and over nothing else.

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) left: i32,
    pub(crate) top: i32,
    pub(crate) right: i32,
    pub(crate) bottom: i32,
}

impl Area {
    /// The square around a point.
    pub(crate) fn around((x, y): (i32, i32), radius: i32) -> Self {
        Self { left: x - radius, top: y - radius, right: x + radius, bottom: y + radius }
    }

    fn overlaps(&self, other: &Area) -> bool {
        self.left < other.right
            && other.left < self.right
            && self.top < other.bottom
            && other.top < self.bottom
    }

    fn contains(&self, other: &Area) -> bool {
        self.left <= other.left
            && other.right <= self.right
            && self.top <= other.top
            && other.bottom <= self.bottom
    }
}

/// Places labels one after the other. Earlier ones have first choice.
pub(crate) struct Labels {
    frame: Area,
    taken: Vec<Area>,
    /// Height of a line.
    height: i32,
}

impl Labels {
    /// Labels that stay inside `frame` and cover none of `taken`, in a font of `size` pixels.
    pub(crate) fn new(frame: Area, taken: Vec<Area>, size: i32) -> Self {
        Self { frame, taken, height: size }
    }

    /// The top left corner of a label for the point, if there is room anywhere beside it.
    pub(crate) fn place(&mut self, (x, y): (i32, i32), text: &str) -> Option<(i32, i32)> {
        // Digits and letters of a sans-serif font are about 0.6 times its size wide.
        let (width, height) = (text.chars().count() as i32 * self.height * 6 / 10, self.height);
        let gap = 8;
        let corners = [
            (x + gap, y - height / 2),
            (x - width - gap, y - height / 2),
            (x - width / 2, y - height - gap),
            (x - width / 2, y + gap),
            (x + gap, y - height - gap / 2),
            (x + gap, y + gap / 2),
            (x - width - gap, y - height - gap / 2),
            (x - width - gap, y + gap / 2),
        ];
        let area = |(left, top)| Area { left, top, right: left + width, bottom: top + height };
        let free =
            |area: &Area| self.frame.contains(area) && !self.taken.iter().any(|taken| taken.overlaps(area));
        let corner = corners.into_iter().find(|&corner| free(&area(corner)))?;
        self.taken.push(area(corner));
        Some(corner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_overlap() {
        let frame = Area { left: 0, top: 0, right: 200, bottom: 100 };
        let point = (100, 50);
        let mut labels = Labels::new(frame, vec![Area::around(point, 5)], 12);
        let mut placed = 0;
        while labels.place(point, "1x2x3").is_some() {
            placed += 1;
        }
        assert!((2..=8).contains(&placed), "{placed}");
        for (i, x) in labels.taken.iter().enumerate() {
            assert!(labels.taken[..i].iter().all(|y| !x.overlaps(y)));
            assert!(labels.frame.contains(x));
        }
    }

    #[test]
    fn nothing_leaves_the_frame() {
        let frame = Area { left: 0, top: 0, right: 30, bottom: 10 };
        assert_eq!(Labels::new(frame, Vec::new(), 12).place((15, 5), "1024x1024x1024"), None);
    }
}
