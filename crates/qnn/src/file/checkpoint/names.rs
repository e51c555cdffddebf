//! The order of layers in a checkpoint: names are sorted as people count, `fc2` before `fc10`.

use core::cmp::Ordering;

/// Compares names run by run: runs of digits by their value, others byte by byte. Names that count
/// as equal (`a1`, `a01`) are compared byte by byte, so that a name is `Equal` only to itself.
pub(crate) fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a.as_bytes(), b.as_bytes());
    while let (Some(first_a), Some(first_b)) = (rest_a.first(), rest_b.first()) {
        let order = if first_a.is_ascii_digit() && first_b.is_ascii_digit() {
            let (number_a, number_b) = (take_number(&mut rest_a), take_number(&mut rest_b));
            number_a.len().cmp(&number_b.len()).then(number_a.cmp(number_b))
        } else {
            let order = first_a.cmp(first_b);
            (rest_a, rest_b) = (&rest_a[1..], &rest_b[1..]);
            order
        };
        if order.is_ne() {
            return order;
        }
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// Takes the leading digits off `rest` and gives them without leading zeros, so that a longer
/// number is a larger one.
fn take_number<'n>(rest: &mut &'n [u8]) -> &'n [u8] {
    let end = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    *rest = after;
    &number[number.iter().position(|&digit| digit != b'0').unwrap_or(number.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_count_by_value() {
        let sorted =
            ["", "0", "2", "10", "fc", "fc0", "fc2", "fc2.a", "fc02", "fc10", "fc10.2", "fc10.10", "g1"];
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                // fc02 counts as fc2, then its bytes decide; what follows the number decides before
                // them.
                if !(a.starts_with("fc02") || b.starts_with("fc02")) {
                    assert_eq!(natural_order(a, b), i.cmp(&j), "{a:?} {b:?}");
                }
            }
        }
        assert_eq!(natural_order("fc02", "fc2"), Ordering::Less);
        assert_eq!(natural_order("fc02", "fc3"), Ordering::Less);
        assert_eq!(natural_order("fc99999999999999999999998", "fc99999999999999999999999"), Ordering::Less);
    }

    proptest! {
        #[test]
        fn it_is_a_total_order(mut names in proptest::collection::vec("[a0-2.]{0,6}", 3)) {
            let reverse = |a: &str, b: &str| natural_order(b, a).reverse();
            for a in &names {
                for b in &names {
                    prop_assert_eq!(natural_order(a, b), reverse(a, b));
                    prop_assert_eq!(natural_order(a, b).is_eq(), a == b);
                }
            }
            names.sort_by(|a, b| natural_order(a, b));
            prop_assert!(natural_order(&names[0], &names[2]).is_le());
        }
    }
}
