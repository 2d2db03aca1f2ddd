use super::*;

#[test]
fn a_row_is_read_with_what_has_no_answer_left_out() {
    let said = "00000000:18:00.0, GPU-2b8f1a6c-0000-4c7a-9f5e-111111111111, NVIDIA H200, 143771, Disabled, P0, 9.0\n\
                00010000:9C:00.0, GPU-3c8f1a6c-0000-4c7a-9f5e-222222222222, NVIDIA GeForce GT 710, [N/A], [N/A], P8, 3.5\n";
    let rows = parse(said);
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].bus_id, "0000:18:00.0");
    assert_eq!(rows[0].name.as_deref(), Some("NVIDIA H200"));
    assert_eq!(rows[0].memory_mib, Some(143_771));
    assert_eq!(rows[0].compute_capability.as_deref(), Some("9.0"));
    assert_eq!(rows[1].bus_id, "10000:9c:00.0");
    assert_eq!(rows[1].memory_mib, None);
    assert!(rows.iter().all(|row| row.trouble.is_none() && !row.mig));
}

#[test]
fn trouble_in_a_field_is_told_and_remarks_are_no_rows() {
    let said = "Unable to determine the device handle for GPU 0000:BA:80.0: Unknown Error\n\
                00000000:9C:00.0, GPU-3c8f, NVIDIA H200, [Unknown Error], Enabled, P0, 9.0\n";
    let rows = parse(said);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].trouble.as_deref(), Some("Unknown Error"));
    assert!(rows[0].mig);
}

#[test]
fn whatever_else_than_that_there_is_no_value_is_trouble() {
    let of = |state: &str| {
        let line = format!("00000000:9C:00.0, GPU-1, NVIDIA H200, 143771, Disabled, {state}, 9.0");
        parse(&line).remove(0).trouble
    };
    for none in ["P0", "N/A", "[N/A]", "[Not Supported]", "[Not Found]"] {
        assert_eq!(of(none), None, "{none}");
    }
    for said in ["GPU requires reset", "Unknown Error", "Reset Required"] {
        assert_eq!(of(&format!("[{said}]")).as_deref(), Some(said));
    }
    assert_eq!(of("GPU is lost").as_deref(), Some("GPU is lost"));
}

#[test]
fn the_operators_driver_is_found_and_run_in_its_own_file_system() {
    let root = tempfile::tempdir().unwrap();
    let make = |path: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    };
    assert_eq!(program(root.path()), None);
    make("run/nvidia/driver/usr/bin/nvidia-smi");
    let own_root = root.path().join("run/nvidia/driver");
    let expected: [OsString; 3] = ["chroot".into(), own_root.into(), "nvidia-smi".into()];
    assert_eq!(program(root.path()).unwrap(), expected);
    make("usr/bin/nvidia-smi");
    let expected = [root.path().join("usr/bin/nvidia-smi").into_os_string()];
    assert_eq!(program(root.path()).unwrap(), expected);
}

/// Makes `nvidia-smi` of these lines, which find the folder that they are in under `$here`.
fn tool(root: &Path, lines: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let program = root.join("usr/bin/nvidia-smi");
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    let script = format!("#!/bin/sh\nhere=${{0%/*}}\necho \"$1\" >>\"$here/asked\"\n{lines}\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What it was asked.
fn asked(root: &Path) -> Vec<String> {
    let said = std::fs::read_to_string(root.join("usr/bin/asked")).unwrap_or_default();
    said.lines().map(str::to_owned).collect()
}

const H200: &str = "00000000:18:00.0, GPU-1, NVIDIA H200, 143771, Disabled, P0";

#[tokio::test]
async fn one_that_hangs_is_ended() {
    let root = tempfile::tempdir().unwrap();
    tool(root.path(), "exec sleep 60");
    let mut tool = Tool {
        patience: Duration::from_millis(300),
        ..Tool::default()
    };
    assert_eq!(tool.ask(root.path()).await, Err(Silent::Hangs));
    let begun = std::time::Instant::now();
    tool.hanging.take().unwrap().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn while_one_cannot_be_ended_no_other_is_run() {
    let root = tempfile::tempdir().unwrap();
    tool(root.path(), &format!("echo '{H200}, 9.0'"));
    let (end, ended) = tokio::sync::oneshot::channel();
    let mut tool = Tool {
        hanging: Some(tokio::spawn(async { ended.await.unwrap() })),
        ..Tool::default()
    };
    for _ in 0..3 {
        assert_eq!(tool.ask(root.path()).await, Err(Silent::Hangs));
    }
    assert_eq!(asked(root.path()), [""; 0]);
    end.send(()).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(tool.ask(root.path()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_it_told_before_it_failed_counts() {
    let root = tempfile::tempdir().unwrap();
    tool(root.path(), &format!("echo '{H200}, 9.0'; exit 15"));
    let rows = Tool::default().ask(root.path()).await.unwrap();
    assert_eq!(rows[0].compute_capability.as_deref(), Some("9.0"));
}

#[tokio::test]
async fn an_older_one_is_asked_for_what_it_knows() {
    let root = tempfile::tempdir().unwrap();
    let lines = format!(
        "case $1 in *compute_cap*) echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2;; esac\necho '{H200}'"
    );
    tool(root.path(), &lines);
    let rows = Tool::default().ask(root.path()).await.unwrap();
    assert_eq!((rows.len(), &rows[0].compute_capability), (1, &None));
    assert_eq!(asked(root.path()).len(), 3);
}

#[test]
fn remapping_is_read_in_both_ways_drivers_write_it() {
    let mut rows = parse(
        "00000000:18:00.0, GPU-1, NVIDIA H200, 143771, Disabled, P0, 9.0\n\
         00000000:9C:00.0, GPU-2, NVIDIA H200, 143771, Disabled, P0, 9.0\n",
    );
    add_remapping(
        &mut rows,
        "00000000:9C:00.0, Yes, 0\n00000000:18:00.0, No, 1\n",
    );
    let told: Vec<_> = rows
        .iter()
        .map(|row| (row.reset_pending, row.remapping_failed))
        .collect();
    assert_eq!(told, [(false, true), (true, false)]);
}
