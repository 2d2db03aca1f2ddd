use super::*;

#[test]
fn a_row_is_read_with_what_has_no_answer_left_out() {
    let said = "00000000:18:00.0, GPU-2b8f1a6c-0000-4c7a-9f5e-111111111111, NVIDIA H200, 143771, Disabled, 9.0\n\
                00010000:9C:00.0, GPU-3c8f1a6c-0000-4c7a-9f5e-222222222222, NVIDIA GeForce GT 710, [N/A], [N/A], 3.5\n";
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
                00000000:9C:00.0, GPU-3c8f, NVIDIA H200, [Unknown Error], Enabled, 9.0\n";
    let rows = parse(said);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].trouble.as_deref(), Some("Unknown Error"));
    assert!(rows[0].mig);
}

#[test]
fn remapping_is_read_in_both_ways_drivers_write_it() {
    let mut rows = parse(
        "00000000:18:00.0, GPU-1, NVIDIA H200, 143771, Disabled, 9.0\n\
         00000000:9C:00.0, GPU-2, NVIDIA H200, 143771, Disabled, 9.0\n",
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
