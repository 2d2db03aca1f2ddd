use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::{Health, Observer};
use super::*;

/// A machine's files with this many H200 on the bus.
fn machine_with(devices: u8) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for number in 0..devices {
        on_bus(
            root.path(),
            &format!("0000:{number:02x}:00.0"),
            "0x10de",
            "0x030200",
        );
    }
    // The host's bridge, an NVSwitch, and a card of somebody else.
    on_bus(root.path(), "0000:f0:00.0", "0x8086", "0x060000");
    on_bus(root.path(), "0000:f1:00.0", "0x10de", "0x068000");
    on_bus(root.path(), "0000:f2:00.0", "0x1002", "0x030000");
    root
}

fn on_bus(root: &Path, address: &str, vendor: &str, class: &str) {
    let device = root.join("sys/bus/pci/devices").join(address);
    write(&device.join("vendor"), &format!("{vendor}\n"));
    write(&device.join("class"), &format!("{class}\n"));
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// An `nvidia-smi` that answers a query for devices with these lines and knows nothing of remapping.
fn tools(root: &Path, lines: &str) {
    write(&root.join("sys/module/nvidia/version"), "570.86.15\n");
    let program = root.join("usr/bin/nvidia-smi");
    let script = format!(
        "#!/bin/sh\ncase $1 in --query-gpu=*) cat <<'END'\n{lines}END\n;; *) exit 2;; esac\n"
    );
    write(&program, &script);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn h200(number: u8) -> String {
    format!("00000000:{number:02X}:00.0, GPU-{number}, NVIDIA H200, 143771, Disabled, P0, 9.0\n")
}

#[tokio::test]
async fn a_machine_without_devices_has_no_labels_and_nothing_to_say() {
    let root = machine_with(0);
    let machine = Observer::default().look(root.path()).await;
    assert_eq!(machine, Machine::default());
    assert!(labels(&machine).is_empty());
}

#[tokio::test]
async fn labels_are_those_of_feature_discovery() {
    let root = machine_with(2);
    tools(root.path(), &[h200(0), h200(1)].concat());
    write(&root.path().join("usr/bin/nvidia-ctk"), "");
    write(
        &root.path().join("etc/containerd/conf.d/99-nvidia.toml"),
        "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.nvidia]\n",
    );
    let machine = Observer::default().look(root.path()).await;
    assert_eq!(machine.findings, Vec::<String>::new());
    let expected = [
        ("nvidia.com/cuda.driver-version.full", "570.86.15"),
        ("nvidia.com/cuda.driver.major", "570"),
        ("nvidia.com/cuda.driver.minor", "86"),
        ("nvidia.com/cuda.driver.rev", "15"),
        ("nvidia.com/gpu.compute.major", "9"),
        ("nvidia.com/gpu.compute.minor", "0"),
        ("nvidia.com/gpu.count", "2"),
        ("nvidia.com/gpu.family", "hopper"),
        ("nvidia.com/gpu.memory", "143771"),
        ("nvidia.com/gpu.present", "true"),
        ("nvidia.com/gpu.product", "NVIDIA-H200"),
        ("stoker.dev/gpu.healthy", "2"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    assert_eq!(labels(&machine), expected.into());
}

#[tokio::test]
async fn a_device_that_the_driver_has_lost_is_unhealthy_and_the_others_keep_their_labels() {
    let root = machine_with(3);
    let lost = "Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.\n";
    tools(root.path(), &[h200(0), lost.to_owned(), h200(1)].concat());
    let machine = Observer::default().look(root.path()).await;
    assert_eq!(machine.healthy(), 2);
    assert_eq!(machine.devices[2].health, Health::Unhealthy);
    assert!(
        machine.findings[0].starts_with("0000:02:00.0 is on the bus"),
        "{:?}",
        machine.findings
    );
    let labels = labels(&machine);
    assert_eq!(labels["nvidia.com/gpu.count"], "3");
    assert_eq!(labels["stoker.dev/gpu.healthy"], "2");
    assert_eq!(labels["nvidia.com/gpu.product"], "NVIDIA-H200");
}

#[tokio::test]
async fn without_a_driver_the_devices_are_told_and_what_to_do() {
    let root = machine_with(1);
    let machine = Observer::default().look(root.path()).await;
    assert_eq!(machine.healthy(), 0);
    assert!(machine.findings[0].contains("driver is not loaded"));
    assert!(machine.findings[1].contains("toolkit is not installed"));
    assert_eq!(labels(&machine)["nvidia.com/gpu.present"], "true");
}

#[tokio::test]
async fn where_nobody_can_be_asked_no_device_is_called_unhealthy() {
    let root = machine_with(1);
    write(
        &root.path().join("sys/module/nvidia/version"),
        "570.86.15\n",
    );
    let machine = Observer::default().look(root.path()).await;
    assert_eq!(machine.devices[0].health, Health::Unknown);
    let labels = labels(&machine);
    assert!(!labels.contains_key("stoker.dev/gpu.healthy"));
    assert_eq!(labels["nvidia.com/gpu.count"], "1");
}

#[test]
fn values_are_what_labels_may_have() {
    assert_eq!(
        label_value("NVIDIA H100 80GB HBM3").as_deref(),
        Some("NVIDIA-H100-80GB-HBM3")
    );
    assert_eq!(
        label_value("Quadro RTX 6000/8000 (TM)").as_deref(),
        Some("Quadro-RTX-60008000-TM")
    );
    assert_eq!(label_value("(?)"), None);
}
