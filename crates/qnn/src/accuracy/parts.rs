//! Work in parts, on the calling thread or on a pool.

use qkernels::Threads;

/// How many threads there are.
pub(crate) fn thread_count(threads: Threads<'_>) -> usize {
    match threads {
        Threads::Pool(pool) => pool.current_num_threads(),
        _ => 1,
    }
}

/// The results of `work` for all items, in their order, or the error of the first that has one.
///
/// Which thread does an item cannot change its result, so results have the same bits whatever the
/// threads.
pub(crate) fn map_parts<T: Send, R: Send, E: Send>(
    threads: Threads<'_>,
    items: Vec<T>,
    work: &(impl Fn(T) -> Result<R, E> + Sync),
) -> Result<Vec<R>, E> {
    // The pool is used through its methods: there is nothing else of rayon that this crate needs.
    let Threads::Pool(pool) = threads else { return items.into_iter().map(work).collect() };
    if items.len() < 2 {
        return items.into_iter().map(work).collect();
    }
    let mut first = items;
    let second = first.split_off(first.len() / 2);
    let (first, second) = pool.join(|| map_parts(threads, first, work), || map_parts(threads, second, work));
    let mut results = first?;
    results.extend(second?);
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_order_and_the_first_error_is_the_one() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        assert_eq!((thread_count(Threads::Serial), thread_count(Threads::Pool(&pool))), (1, 3));
        for threads in [Threads::Serial, Threads::Pool(&pool)] {
            for len in [0, 1, 2, 7, 100] {
                let squares = map_parts(threads, (0..len).collect(), &|i: u32| Ok::<_, u32>(i * i));
                assert_eq!(squares, Ok((0..len).map(|i| i * i).collect()));
            }
            let odd_fails = |i: u32| if i % 2 == 1 && i > 40 { Err(i) } else { Ok(()) };
            assert_eq!(map_parts(threads, (0..100).collect(), &odd_fails), Err(41));
        }
    }
}
