//! What must be transactional: who has which address, in which network, on which interface.
//!
//! A row is there before what it speaks of is made, and until it is gone. Uniqueness of addresses
//! is the database's own rule, so that no mistake here gives one out twice.

use std::net::IpAddr;

use hull_manager_core::{Error, Result, Store};
use hull_specs_api::v1;
use ipnet::IpNet;
use prost::Message as _;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::mac::Mac;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS network_sandboxes (
        container TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        hostname TEXT NOT NULL,
        options BLOB NOT NULL,
        leaving INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS network_endpoints (
        id TEXT PRIMARY KEY,
        container TEXT NOT NULL REFERENCES network_sandboxes (container) ON DELETE CASCADE,
        network TEXT NOT NULL,
        interface TEXT NOT NULL,
        mac TEXT NOT NULL,
        ipv4 TEXT,
        ipv6 TEXT,
        gateways TEXT NOT NULL,
        options BLOB NOT NULL,
        UNIQUE (container, network),
        UNIQUE (container, interface),
        UNIQUE (network, ipv4),
        UNIQUE (network, ipv6)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS network_ports (
        container TEXT NOT NULL REFERENCES network_sandboxes (container) ON DELETE CASCADE,
        port BLOB NOT NULL
    );
    CREATE INDEX IF NOT EXISTS network_ports_container ON network_ports (container);
    CREATE INDEX IF NOT EXISTS network_sandboxes_leaving ON network_sandboxes (container)
        WHERE leaving = 1;
";

/// A container that has a namespace of ours.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sandbox {
    pub(crate) container: String,
    pub(crate) name: String,
    pub(crate) hostname: String,
    /// Of its options those that concern networks.
    pub(crate) options: v1::ContainerOptions,
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Endpoint {
    /// 64 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) container: String,
    /// The network's id.
    pub(crate) network: String,
    /// The interface in the container.
    pub(crate) interface: String,
    pub(crate) mac: Mac,
    /// With the subnet's prefix length.
    pub(crate) ipv4: Option<IpNet>,
    pub(crate) ipv6: Option<IpNet>,
    /// Of a network by plugins: those that they told of. Others' are in the definition.
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) options: v1::EndpointOptions,
}

impl Endpoint {
    /// The interface of the host's that is the other end.
    pub(crate) fn host_interface(&self) -> String {
        format!("hv{}", self.id.get(..12).unwrap_or(&self.id))
    }

    /// Those of its network.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpNet> {
        self.ipv4.into_iter().chain(self.ipv6)
    }

    /// Those of its link that were asked for besides, with the prefixes of RFC 3927 and RFC 4291.
    pub(crate) fn link_locals(&self) -> impl Iterator<Item = IpNet> {
        self.options.link_local_addresses.iter().filter_map(|text| {
            let address: IpAddr = text.parse().ok()?;
            IpNet::new(address, if address.is_ipv4() { 16 } else { 64 }).ok()
        })
    }
}

/// The rows; clones share them.
#[derive(Clone)]
pub(crate) struct Records(Store);

impl Records {
    pub(crate) fn open(store: &Store) -> Result<Self> {
        store.tables(TABLES)?;
        Ok(Self(store.clone()))
    }

    /// Several changes at once.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.0.write(change)
    }

    pub(crate) fn sandbox(&self, container: &str) -> Result<Option<Sandbox>> {
        self.0.read(|c| {
            let sql = "SELECT container, name, hostname, options FROM network_sandboxes
                       WHERE container = ?1";
            Ok(c.prepare_cached(sql)?.query_row([container], read_sandbox).optional()?)
        })
    }

    /// All that are not about to be gone.
    pub(crate) fn sandboxes(&self) -> Result<Vec<Sandbox>> {
        self.0.read(|c| {
            let sql = "SELECT container, name, hostname, options FROM network_sandboxes
                       WHERE leaving = 0";
            Ok(c.prepare_cached(sql)?.query_map([], read_sandbox)?.collect::<Result<_, _>>()?)
        })
    }

    /// The ids of containers whose connections are being taken away.
    pub(crate) fn leaving(&self) -> Result<Vec<String>> {
        self.0.read(|c| {
            let sql = "SELECT container FROM network_sandboxes WHERE leaving = 1";
            let mut statement = c.prepare_cached(sql)?;
            Ok(statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
        })
    }

    /// Whether a container's connections are being taken away.
    pub(crate) fn is_leaving(&self, container: &str) -> Result<bool> {
        self.0.read(|c| {
            let sql = "SELECT 1 FROM network_sandboxes WHERE container = ?1 AND leaving = 1";
            Ok(c.prepare_cached(sql)?.exists([container])?)
        })
    }

    /// A container's connections are being taken away; its addresses are nobody else's yet.
    pub(crate) fn set_leaving(&self, container: &str) -> Result<()> {
        self.0.settle(|t| {
            let sql = "UPDATE network_sandboxes SET leaving = 1 WHERE container = ?1";
            t.execute(sql, [container])?;
            Ok(())
        })
    }

    /// Gives a container this name; false: it has it, or is none of ours.
    pub(crate) fn rename(&self, container: &str, name: &str) -> Result<bool> {
        if self.sandbox(container)?.is_none_or(|sandbox| sandbox.name == name) {
            return Ok(false);
        }
        self.write(|t| {
            let sql = "UPDATE network_sandboxes SET name = ?2 WHERE container = ?1";
            t.execute(sql, [container, name])?;
            Ok(true)
        })
    }

    /// Those of a container, in the order of its interfaces.
    pub(crate) fn of_container(&self, container: &str) -> Result<Vec<Endpoint>> {
        self.endpoints("container = ?1", container)
    }

    pub(crate) fn of_network(&self, network: &str) -> Result<Vec<Endpoint>> {
        self.endpoints("network = ?1", network)
    }

    /// Those of a network's containers that are not about to be gone.
    pub(crate) fn members(&self, network: &str) -> Result<Vec<Endpoint>> {
        self.endpoints(
            "network = ?1 AND container NOT IN
             (SELECT container FROM network_sandboxes WHERE leaving = 1)",
            network,
        )
    }

    pub(crate) fn all(&self) -> Result<Vec<Endpoint>> {
        self.endpoints("?1 = ''", "")
    }

    /// Whose an endpoint is, by the beginning of its id.
    pub(crate) fn container_of(&self, endpoint: &str) -> Result<Option<String>> {
        self.0.read(|c| {
            let sql = "SELECT container FROM network_endpoints
                       WHERE id >= ?1 AND id < ?1 || 'g' LIMIT 1";
            Ok(c.query_row(sql, [endpoint], |row| row.get(0)).optional()?)
        })
    }

    fn endpoints(&self, which: &str, value: &str) -> Result<Vec<Endpoint>> {
        self.0.read(|c| {
            let sql = format!(
                "SELECT id, container, network, interface, mac, ipv4, ipv6, gateways, options
                 FROM network_endpoints WHERE {which}
                 ORDER BY container, length(interface), interface"
            );
            let mut statement = c.prepare_cached(&sql)?;
            Ok(statement.query_map([value], read_endpoint)?.collect::<Result<_, _>>()?)
        })
    }

    pub(crate) fn ports(&self, container: &str) -> Result<Vec<v1::PublishedPort>> {
        self.0.read(|c| {
            let sql = "SELECT port FROM network_ports WHERE container = ?1 ORDER BY rowid";
            let mut statement = c.prepare_cached(sql)?;
            let rows = statement.query_map([container], |row| decode(row, 0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Forgets a container: its addresses are free from now on.
    pub(crate) fn remove_sandbox(&self, container: &str) -> Result<()> {
        self.0.settle(|t| {
            t.execute("DELETE FROM network_sandboxes WHERE container = ?1", [container])?;
            Ok(())
        })
    }

    /// Writes down the addresses that plugins have given.
    pub(crate) fn set_addresses(&self, endpoint: &Endpoint) -> Result<()> {
        let text = |net: Option<IpNet>| net.map(|net| net.to_string());
        let gateways: Vec<_> = endpoint.gateways.iter().map(ToString::to_string).collect();
        self.write(|t| {
            t.execute(
                "UPDATE network_endpoints SET mac = ?2, ipv4 = ?3, ipv6 = ?4, gateways = ?5
                 WHERE id = ?1",
                params![
                    endpoint.id,
                    endpoint.mac.to_string(),
                    text(endpoint.ipv4),
                    text(endpoint.ipv6),
                    gateways.join(" ")
                ],
            )?;
            Ok(())
        })
    }

    pub(crate) fn remove_endpoint(&self, id: &str) -> Result<()> {
        self.0.settle(|t| {
            t.execute("DELETE FROM network_endpoints WHERE id = ?1", [id])?;
            Ok(())
        })
    }

    pub(crate) fn set_ports(&self, container: &str, ports: &[v1::PublishedPort]) -> Result<()> {
        self.write(|t| {
            t.execute("DELETE FROM network_ports WHERE container = ?1", [container])?;
            let sql = "INSERT INTO network_ports (container, port) VALUES (?1, ?2)";
            let mut insert = t.prepare_cached(sql)?;
            for port in ports {
                insert.execute(params![container, port.encode_to_vec()])?;
            }
            Ok(())
        })
    }
}

/// Whether an address of a network is given out. Costs the same whatever is there.
pub(crate) fn is_used(t: &Transaction<'_>, network: &str, net: IpNet) -> Result<bool> {
    let column = if net.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    let sql = format!("SELECT 1 FROM network_endpoints WHERE network = ?1 AND {column} = ?2");
    Ok(t.prepare_cached(&sql)?.exists([network, net.to_string().as_str()])?)
}

pub(crate) fn add_sandbox(t: &Transaction<'_>, sandbox: &Sandbox) -> Result<()> {
    t.execute(
        "INSERT INTO network_sandboxes (container, name, hostname, options)
         VALUES (?1, ?2, ?3, ?4)",
        params![sandbox.container, sandbox.name, sandbox.hostname, sandbox.options.encode_to_vec()],
    )?;
    Ok(())
}

pub(crate) fn add_endpoint(t: &Transaction<'_>, endpoint: &Endpoint) -> Result<()> {
    let text = |net: Option<IpNet>| net.map(|net| net.to_string());
    let added = t.execute(
        "INSERT INTO network_endpoints (id, container, network, interface, mac, ipv4, ipv6, gateways, options)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, '', ?8)",
        params![
            endpoint.id,
            endpoint.container,
            endpoint.network,
            endpoint.interface,
            endpoint.mac.to_string(),
            text(endpoint.ipv4),
            text(endpoint.ipv6),
            endpoint.options.encode_to_vec()
        ],
    );
    match added {
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) =>
        {
            Err(Error::conflict("Address already in use".to_owned()).because(error))
        }
        added => Ok(added.map(drop)?),
    }
}

fn read_sandbox(row: &Row<'_>) -> rusqlite::Result<Sandbox> {
    Ok(Sandbox {
        container: row.get(0)?,
        name: row.get(1)?,
        hostname: row.get(2)?,
        options: decode(row, 3)?,
    })
}

fn read_endpoint(row: &Row<'_>) -> rusqlite::Result<Endpoint> {
    let mac: String = row.get(4)?;
    Ok(Endpoint {
        id: row.get(0)?,
        container: row.get(1)?,
        network: row.get(2)?,
        interface: row.get(3)?,
        mac: mac.parse().map_err(|error: Error| wrong(4, error))?,
        ipv4: net(row, 5)?,
        ipv6: net(row, 6)?,
        gateways: {
            let text: String = row.get(7)?;
            text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
        },
        options: decode(row, 8)?,
    })
}

fn net(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<IpNet>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error: ipnet::AddrParseError| wrong(column, error)))
        .transpose()
}

fn decode<M: prost::Message + Default>(row: &Row<'_>, column: usize) -> rusqlite::Result<M> {
    let bytes: Vec<u8> = row.get(column)?;
    M::decode(bytes.as_slice()).map_err(|error| wrong(column, error))
}

fn wrong(column: usize, cause: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Null, Box::new(cause))
}
