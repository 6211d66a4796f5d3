//! Moving network devices into the container (config-linux.md, Network Devices).
//!
//! A device keeps its permanent global addresses, which the kernel drops on the way: they
//! are read before and added again inside, and the device is brought up. When the
//! container's network namespace ends, the kernel moves physical devices back itself.
//!
//! Three kinds of rtnetlink(7) request are all that is needed, so they are written here;
//! a netlink crate would be larger than the rest of the runtime's network code.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, OwnedFd},
};

use anyhow::{Context, Result, bail};
use hull_runtime_sys as sys;
use hull_specs_oci::NetDevice;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCL: u16 = 0x600;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;

const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u32 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// The sizes of nlmsghdr, ifinfomsg and ifaddrmsg, in bytes.
const HEADER: usize = 16;
const IFINFO: usize = 16;
const IFADDR: usize = 8;

/// The most that one dump may hold, in bytes.
const MAX_REPLY_BYTES: usize = 1 << 20;

/// Moves the devices into the network namespace of process `pid`.
pub(crate) fn move_into(pid: i32, devices: &BTreeMap<String, NetDevice>) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let open = |path: String| -> Result<OwnedFd> {
        let path = std::ffi::CString::new(path).context("a number holds no NUL")?;
        Ok(sys::fd::openat(sys::fd::AT_FDCWD, &path, libc::O_RDONLY, 0)?)
    };
    let ours = open("/proc/self/ns/net".to_owned())?;
    let theirs = open(format!("/proc/{pid}/ns/net"))?;
    let outside = Socket(sys::netlink::route_socket()?);
    sys::namespace::setns(&theirs, libc::CLONE_NEWNET)
        .context("cannot enter the container's network namespace")?;
    let inside = sys::netlink::route_socket();
    sys::namespace::setns(&ours, libc::CLONE_NEWNET)
        .context("cannot leave the container's network namespace")?;
    let inside = Socket(inside?);
    for (name, device) in devices {
        let new_name = if device.name.is_empty() { name } else { &device.name };
        move_one(&outside, &inside, &theirs, name, new_name)
            .with_context(|| format!("cannot move network device {name} into the container"))?;
    }
    Ok(())
}

fn move_one(
    outside: &Socket,
    inside: &Socket,
    namespace: &OwnedFd,
    name: &str,
    new_name: &str,
) -> Result<()> {
    let index = outside.index(name)?;
    let addresses = outside.addresses(index)?;
    let mut request = ifinfo(index, 0, 0);
    attribute(&mut request, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
    attribute(&mut request, IFLA_IFNAME, &c_name(new_name));
    outside.request(RTM_SETLINK, NLM_F_ACK, &request)?;
    let index = inside.index(new_name)?;
    for address in addresses {
        let request = readdress(&address, index);
        inside
            .request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_EXCL, &request)
            .context("cannot keep its address")?;
    }
    inside.request(RTM_SETLINK, NLM_F_ACK, &ifinfo(index, IFF_UP, IFF_UP))?;
    Ok(())
}

fn c_name(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn ifinfo(index: i32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The attributes of a message's tail, as (kind, value); ends at the first malformed one.
fn attributes(mut tail: &[u8]) -> Vec<(u16, &[u8])> {
    let mut list = Vec::new();
    while let Some((head, _)) = tail.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let Some(value) = tail.get(4..length) else { break };
        list.push((kind, value));
        tail = tail.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    list
}

/// The address message of one namespace as a request for another: for the new index, and
/// without what the kernel computes or what names the old device.
fn readdress(message: &[u8], index: i32) -> Vec<u8> {
    let mut request = message[..4].to_vec();
    request.extend(index.to_ne_bytes());
    for (kind, value) in attributes(&message[IFADDR..]) {
        if kind != IFA_LABEL && kind != IFA_CACHEINFO {
            attribute(&mut request, kind, value);
        }
    }
    request
}

/// Whether an address stays with its device: set by hand, and valid beyond this link.
fn is_kept(message: &[u8], index: i32) -> bool {
    let Some((head, tail)) = message.split_first_chunk::<IFADDR>() else { return false };
    let flags = attributes(tail)
        .into_iter()
        .find(|(kind, _)| *kind == IFA_FLAGS)
        .and_then(|(_, value)| Some(u32::from_ne_bytes(*value.first_chunk()?)))
        .unwrap_or(u32::from(head[2]));
    let of = i32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
    of == index && flags & IFA_F_PERMANENT != 0 && head[3] == RT_SCOPE_UNIVERSE
}

struct Socket(OwnedFd);

impl Socket {
    /// Sends one request and returns the bodies of its answers.
    fn request(&self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<(u16, Vec<u8>)>> {
        let length = u32::try_from(HEADER + body.len()).context("a request is too long")?;
        let mut packet = length.to_ne_bytes().to_vec();
        packet.extend(kind.to_ne_bytes());
        packet.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        packet.extend([0; 8]);
        packet.extend(body);
        sys::fd::write_all(&self.0, &packet)?;

        let mut answers = Vec::new();
        let mut total = 0;
        let mut buffer = vec![0; 32768];
        loop {
            let n = sys::fd::read(&self.0, &mut buffer)?;
            total += n;
            if n == 0 || total > MAX_REPLY_BYTES {
                bail!("the kernel's answer does not end");
            }
            let mut rest = &buffer[..n];
            while rest.len() >= HEADER {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let Some(body) = rest.get(HEADER..length) else { bail!("a cut netlink message") };
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        let errno = body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
                        if errno == 0 {
                            return Ok(answers);
                        }
                        return Err(sys::Error::new("rtnetlink", -errno).into());
                    }
                    _ => answers.push((kind, body.to_vec())),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    fn index(&self, name: &str) -> Result<i32> {
        let mut body = ifinfo(0, 0, 0);
        attribute(&mut body, IFLA_IFNAME, &c_name(name));
        let answers = self
            .request(RTM_GETLINK, NLM_F_ACK, &body)
            .with_context(|| format!("network device {name}"))?;
        answers
            .iter()
            .find(|(kind, body)| *kind == RTM_NEWLINK && body.len() >= IFINFO)
            .and_then(|(_, body)| Some(i32::from_ne_bytes(*body.get(4..8)?.first_chunk()?)))
            .with_context(|| format!("network device {name} not found"))
    }

    fn addresses(&self, index: i32) -> Result<Vec<Vec<u8>>> {
        let answers = self.request(RTM_GETADDR, NLM_F_DUMP, &[0; IFADDR])?;
        Ok(answers
            .into_iter()
            .filter(|(kind, body)| *kind == RTM_NEWADDR && is_kept(body, index))
            .map(|(_, body)| body)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(index: i32, flags: u32, scope: u8) -> Vec<u8> {
        let mut message = vec![2, 24, 0, scope];
        message.extend(index.to_ne_bytes());
        attribute(&mut message, 1, &[10, 0, 0, 1]);
        attribute(&mut message, IFA_LABEL, b"eth0\0");
        attribute(&mut message, IFA_FLAGS, &flags.to_ne_bytes());
        attribute(&mut message, IFA_CACHEINFO, &[0; 16]);
        message
    }

    #[test]
    fn only_permanent_global_addresses_of_the_device_are_kept() {
        assert!(is_kept(&address(3, IFA_F_PERMANENT, 0), 3));
        assert!(!is_kept(&address(4, IFA_F_PERMANENT, 0), 3));
        assert!(!is_kept(&address(3, 0, 0), 3));
        assert!(!is_kept(&address(3, IFA_F_PERMANENT, 253), 3));
        assert!(!is_kept(&[1, 2], 3));
    }

    #[test]
    fn an_address_is_asked_for_again_without_its_old_label_and_times() {
        let request = readdress(&address(3, IFA_F_PERMANENT, 0), 9);
        assert_eq!(request[4..8], 9_i32.to_ne_bytes());
        let kinds: Vec<_> = attributes(&request[8..]).iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [1, IFA_FLAGS]);
    }

    #[test]
    fn malformed_attributes_end_the_list() {
        assert!(attributes(&[9, 0, 1, 0, 1]).is_empty());
        assert!(attributes(&[0, 0, 1, 0]).is_empty());
    }
}
