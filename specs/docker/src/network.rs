//! `docker network inspect`.
#![expect(missing_docs, reason = "the fields are Docker's, documented in its API reference")]

use std::collections::{BTreeMap, HashMap};

use hull_specs_api::v1;
use serde::Serialize;

use crate::time;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Network {
    pub name: String,
    pub id: String,
    pub created: String,
    pub scope: String,
    pub driver: String,
    #[serde(rename = "EnableIPv4")]
    pub enable_ipv4: bool,
    #[serde(rename = "EnableIPv6")]
    pub enable_ipv6: bool,
    #[serde(rename = "IPAM")]
    pub ipam: Ipam,
    pub internal: bool,
    pub attachable: bool,
    pub ingress: bool,
    pub config_from: ConfigFrom,
    pub config_only: bool,
    pub containers: BTreeMap<String, Member>,
    pub options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipam {
    pub driver: String,
    pub options: Option<BTreeMap<String, String>>,
    pub config: Vec<Pool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pool {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subnet: String,
    #[serde(rename = "IPRange", skip_serializing_if = "String::is_empty")]
    pub ip_range: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    #[serde(rename = "AuxiliaryAddresses", skip_serializing_if = "BTreeMap::is_empty")]
    pub aux_addresses: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConfigFrom {
    pub network: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Member {
    pub name: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub mac_address: String,
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
    /// Not docker's: of `inspect --verbose` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

/// With the names of docker's `stats`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_errors: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub tx_errors: u64,
    pub tx_dropped: u64,
}

fn map(of: &HashMap<String, String>) -> BTreeMap<String, String> {
    of.clone().into_iter().collect()
}

impl From<&v1::Network> for Network {
    fn from(of: &v1::Network) -> Self {
        let ipam = of.ipam.clone().unwrap_or_default();
        let members = of.members.iter().map(|member| {
            let shown = Member {
                name: member.name.clone(),
                endpoint_id: member.endpoint_id.clone(),
                mac_address: member.mac_address.clone(),
                ipv4_address: member.ipv4_address.clone(),
                ipv6_address: member.ipv6_address.clone(),
                traffic: member.traffic.as_ref().map(Into::into),
            };
            (member.container_id.clone(), shown)
        });
        Self {
            name: of.name.clone(),
            id: of.id.clone(),
            created: time::nano(of.created.as_ref()),
            scope: of.scope.clone(),
            driver: of.driver.clone(),
            enable_ipv4: of.ipv4,
            enable_ipv6: of.ipv6,
            ipam: Ipam {
                driver: ipam.driver.clone(),
                options: (!ipam.options.is_empty()).then(|| map(&ipam.options)),
                config: ipam.pools.iter().map(Into::into).collect(),
            },
            internal: of.internal,
            attachable: of.attachable,
            config_from: ConfigFrom { network: of.config_from.clone() },
            config_only: of.config_only,
            containers: members.collect(),
            options: map(&of.options),
            labels: map(&of.labels),
            ..Self::default()
        }
    }
}

impl From<&v1::InterfaceStats> for Traffic {
    fn from(of: &v1::InterfaceStats) -> Self {
        Self {
            rx_bytes: of.received_bytes,
            rx_packets: of.received_packets,
            rx_errors: of.received_errors,
            rx_dropped: of.received_dropped,
            tx_bytes: of.sent_bytes,
            tx_packets: of.sent_packets,
            tx_errors: of.sent_errors,
            tx_dropped: of.sent_dropped,
        }
    }
}

impl From<&v1::IpamPool> for Pool {
    fn from(of: &v1::IpamPool) -> Self {
        Self {
            subnet: of.subnet.clone(),
            ip_range: of.ip_range.clone(),
            gateway: of.gateway.clone(),
            aux_addresses: map(&of.aux_addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_told_as_docker_tells_it() {
        let network = v1::Network {
            id: "0123".into(),
            name: "web".into(),
            driver: "bridge".into(),
            scope: "local".into(),
            ipv4: true,
            ipam: Some(v1::Ipam {
                driver: "default".into(),
                pools: vec![v1::IpamPool {
                    subnet: "10.0.0.0/24".into(),
                    gateway: "10.0.0.1".into(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            members: vec![v1::NetworkMember {
                container_id: "abcd".into(),
                name: "one".into(),
                ipv4_address: "10.0.0.2/24".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        assert_eq!(
            serde_json::to_string(&Network::from(&network)).unwrap(),
            "{\"Name\":\"web\",\"Id\":\"0123\",\"Created\":\"0001-01-01T00:00:00Z\",\"Scope\":\"local\",\
             \"Driver\":\"bridge\",\"EnableIPv4\":true,\"EnableIPv6\":false,\"IPAM\":{\"Driver\":\"default\",\
             \"Options\":null,\"Config\":[{\"Subnet\":\"10.0.0.0/24\",\"Gateway\":\"10.0.0.1\"}]},\
             \"Internal\":false,\"Attachable\":false,\"Ingress\":false,\"ConfigFrom\":{\"Network\":\"\"},\
             \"ConfigOnly\":false,\"Containers\":{\"abcd\":{\"Name\":\"one\",\"EndpointID\":\"\",\
             \"MacAddress\":\"\",\"IPv4Address\":\"10.0.0.2/24\",\"IPv6Address\":\"\"}},\"Options\":{},\
             \"Labels\":{}}"
        );
    }

    #[test]
    fn traffic_has_the_names_of_stats() {
        let traffic = Traffic::from(&v1::InterfaceStats {
            received_bytes: 1,
            received_dropped: 2,
            sent_packets: 3,
            ..Default::default()
        });
        assert_eq!(
            serde_json::to_string(&traffic).unwrap(),
            r#"{"rx_bytes":1,"rx_packets":0,"rx_errors":0,"rx_dropped":2,"tx_bytes":0,"tx_packets":3,"tx_errors":0,"tx_dropped":0}"#
        );
    }
}
