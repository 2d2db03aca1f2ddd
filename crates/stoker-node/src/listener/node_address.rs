//! Addresses on the node's loopback interface (rtnetlink(7)): there they are reached from the node and its pods, and never
//! taken for the node's own, by which others would reach it.

use std::io;
use std::net::IpAddr;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::os::fd::AsRawFd as _;

const INTERFACE: &str = "lo";
/// `RTM_NEWADDR`, and `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL`.
const GIVE: (u16, u16) = (20, 0x1 | 0x4 | 0x400 | 0x200);
/// `RTM_DELADDR`, and `NLM_F_REQUEST | NLM_F_ACK`.
const TAKE: (u16, u16) = (21, 0x1 | 0x4);
/// `NLMSG_ERROR`, which also says that all is well.
const ANSWER: u16 = 2;
/// `AF_INET` and `AF_INET6`.
const FAMILIES: (u8, u8) = (2, 10);
/// `IFA_F_NODAD`: nobody else can have it.
const NO_DUPLICATES: u8 = 0x2;
/// `RT_SCOPE_HOST`: no address to come from.
const OF_HOST: u8 = 254;
/// `IFA_ADDRESS` and `IFA_LOCAL`.
const ATTRIBUTES: [u16; 2] = [1, 2];
const HEADER: usize = 16;

/// Makes sure that the node has `address`; those of loopback's own networks it has.
///
/// # Errors
/// The kernel refuses: without `CAP_NET_ADMIN`, for one.
pub(super) fn ensure(address: IpAddr) -> io::Result<()> {
    ask(GIVE, address, Errno::EEXIST)
}

/// Makes sure that the node's loopback interface does not have `address`; those of its own networks it keeps.
///
/// # Errors
/// As [`ensure`].
pub(super) fn remove(address: IpAddr) -> io::Result<()> {
    ask(TAKE, address, Errno::EADDRNOTAVAIL)
}

/// `is_so` is what the kernel says when there is nothing to do.
fn ask(what: (u16, u16), address: IpAddr, is_so: Errno) -> io::Result<()> {
    if address.is_loopback() || address.is_unspecified() {
        return Ok(());
    }
    let request = request(what, address, if_nametoindex(INTERFACE)?);
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let kernel = NetlinkAddr::new(0, 0);
    sendto(socket.as_raw_fd(), &request, &kernel, MsgFlags::empty())?;
    let mut answer = [0; 1024];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    match said(&answer[..length]) {
        Some(0) => Ok(()),
        Some(error) if Errno::from_raw(-error) == is_so => Ok(()),
        Some(error) => Err(Errno::from_raw(-error).into()),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn request((kind, ask): (u16, u16), address: IpAddr, interface: u32) -> Vec<u8> {
    let (family, flags, octets) = match address {
        IpAddr::V4(address) => (FAMILIES.0, 0, address.octets().to_vec()),
        IpAddr::V6(address) => (FAMILIES.1, NO_DUPLICATES, address.octets().to_vec()),
    };
    let bits = u8::try_from(octets.len() * 8).unwrap_or(u8::MAX);
    let mut body = vec![family, bits, flags, OF_HOST];
    body.extend(interface.to_ne_bytes());
    for attribute in ATTRIBUTES {
        let length = u16::try_from(octets.len() + 4).unwrap_or(u16::MAX);
        body.extend(length.to_ne_bytes());
        body.extend(attribute.to_ne_bytes());
        body.extend(&octets);
    }
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(ask.to_ne_bytes());
    // Sequence and port: there is one request.
    request.extend([0; 8]);
    request.extend(body);
    request
}

/// 0, or a negative error number.
fn said(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let error = answer.get(HEADER..HEADER + 4)?.try_into().ok()?;
    (kind == ANSWER).then(|| i32::from_ne_bytes(error))
}
