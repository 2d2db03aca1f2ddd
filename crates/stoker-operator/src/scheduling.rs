//! How the kernel is to run this process.

use thread_priority::{
    Error, NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityOsValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// `SCHED_BATCH` of sched(7), for this thread and those that it starts: what arrives does not take a processor from
/// whoever runs, most often an API server in the middle of its answer, and there is more to read each time that we wake
/// up. The niceness becomes 0, as it is in every pod: the share of the processors is that of the pod, as before.
///
/// # Errors
/// The kernel, or what a container is allowed to ask of it, refuses; or it grants the policy and not the niceness.
pub fn give_way() -> Result<(), Error> {
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let usual = ThreadPriority::Os(ThreadPriorityOsValue::default());
    set_thread_priority_and_policy(thread_native_id(), usual, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `proc_pid_stat(5)`: the 39th field behind the program's name.
    fn policy() -> u32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields = stat.rsplit(')').next().unwrap();
        fields.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn a_thread_and_those_it_starts_give_way() {
        const SCHED_BATCH: u32 = 3;
        let started = std::thread::spawn(|| {
            give_way().unwrap();
            (policy(), std::thread::spawn(policy).join().unwrap())
        });
        assert_eq!(started.join().unwrap(), (SCHED_BATCH, SCHED_BATCH));
    }
}
