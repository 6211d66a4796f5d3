//! What the store has of images: rows, written last and removed first.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hull_manager_core::{Error, Result, Store};
use hull_specs_image::{Descriptor, Digest, Reference};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS images (
        id TEXT PRIMARY KEY, manifest TEXT NOT NULL, manifest_type TEXT NOT NULL,
        manifest_bytes INTEGER NOT NULL, parent TEXT NOT NULL, tagged_ns INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS image_references (
        reference TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images (id)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS image_references_image ON image_references (image);
    CREATE TABLE IF NOT EXISTS image_layers (
        image TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE, position INTEGER NOT NULL,
        chain TEXT NOT NULL, blob TEXT NOT NULL, unpacked_bytes INTEGER NOT NULL,
        PRIMARY KEY (image, position)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS image_layers_chain ON image_layers (chain);
    CREATE TABLE IF NOT EXISTS layer_blobs (
        diff_id TEXT NOT NULL, blob TEXT NOT NULL, media_type TEXT NOT NULL,
        bytes INTEGER NOT NULL, PRIMARY KEY (diff_id, blob)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS blob_sources (
        blob TEXT NOT NULL, repository TEXT NOT NULL, seen_ns INTEGER NOT NULL,
        PRIMARY KEY (blob, repository)
    ) WITHOUT ROWID;
";

/// So many repositories are remembered of each blob.
const SOURCES: i64 = 8;

/// The rows.
#[derive(Clone)]
pub(crate) struct Records {
    store: Store,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: Digest,
    pub(crate) manifest: Descriptor,
    /// The image here that it was made from.
    pub(crate) parent: Option<Digest>,
    /// When a reference was last moved to it.
    pub(crate) tagged: SystemTime,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerRecord {
    pub(crate) chain: Digest,
    /// What its manifest names.
    pub(crate) blob: Digest,
    pub(crate) unpacked_bytes: u64,
}

/// A form of a layer: compressed or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerBlob {
    pub(crate) diff_id: Digest,
    pub(crate) blob: Descriptor,
}

/// An image that is whole and shall be there.
#[derive(Clone, Debug)]
pub(crate) struct NewImage {
    pub(crate) id: Digest,
    pub(crate) manifest: Descriptor,
    pub(crate) parent: Option<Digest>,
    pub(crate) layers: Vec<LayerRecord>,
    pub(crate) blobs: Vec<LayerBlob>,
}

impl Records {
    pub(crate) fn open(store: &Store) -> Result<Self> {
        store.tables(TABLES)?;
        Ok(Self { store: store.clone() })
    }

    /// Brings the rows to the disk: before what they no longer name is removed, and before it is
    /// said that they are there.
    pub(crate) fn sync(&self) -> Result<()> {
        self.store.sync()
    }

    /// See [`Store::with_reserve`].
    pub(crate) fn with_reserve<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        self.store.with_reserve(work)
    }

    /// Adds an image, or brings what is known of it up to date, and gives it references; each of
    /// those that named another image before, with that image.
    pub(crate) fn put(
        &self,
        image: &NewImage,
        references: &[Reference],
    ) -> Result<Vec<(Reference, Digest)>> {
        self.store.write(|t| {
            t.prepare_cached(
                "INSERT INTO images VALUES (?1, ?2, ?3, ?4, ?5, 0) ON CONFLICT (id) DO UPDATE SET
                 manifest = ?2, manifest_type = ?3, manifest_bytes = ?4",
            )?
            .execute((
                image.id.to_string(),
                image.manifest.digest.to_string(),
                &image.manifest.media_type,
                integer(image.manifest.size),
                image.parent.map(|id| id.to_string()).unwrap_or_default(),
            ))?;
            t.execute("DELETE FROM image_layers WHERE image = ?1", [image.id.to_string()])?;
            let mut layer =
                t.prepare_cached("INSERT INTO image_layers VALUES (?1, ?2, ?3, ?4, ?5)")?;
            for (position, row) in image.layers.iter().enumerate() {
                layer.execute((
                    image.id.to_string(),
                    integer(position as u64),
                    row.chain.to_string(),
                    row.blob.to_string(),
                    integer(row.unpacked_bytes),
                ))?;
            }
            for blob in &image.blobs {
                add_blob(t, blob)?;
            }
            references.iter().try_fold(Vec::new(), |mut moved, reference| {
                if let Some(previous) = point(t, reference, image.id)? {
                    moved.push((reference.clone(), previous));
                }
                Ok(moved)
            })
        })
    }

    /// Moves a reference to an image.
    pub(crate) fn point(&self, reference: &Reference, id: Digest) -> Result<Option<Digest>> {
        self.store.write(|t| point(t, reference, id))
    }

    /// Takes references away, and with `image` the image.
    pub(crate) fn remove(&self, references: &[Reference], image: Option<Digest>) -> Result<()> {
        self.store.settle(|t| {
            for reference in references {
                t.execute(
                    "DELETE FROM image_references WHERE reference = ?1",
                    [reference.to_string()],
                )?;
            }
            if let Some(id) = image {
                t.execute("DELETE FROM images WHERE id = ?1", [id.to_string()])?;
                // Forms of layers that no image has.
                t.execute(
                    "DELETE FROM layer_blobs WHERE blob NOT IN (SELECT blob FROM image_layers)
                     AND diff_id NOT IN (SELECT b.diff_id FROM layer_blobs b JOIN image_layers l
                                         ON l.blob = b.blob)",
                    [],
                )?;
                t.execute(
                    "DELETE FROM blob_sources WHERE blob NOT IN (SELECT blob FROM layer_blobs)",
                    [],
                )?;
            }
            Ok(())
        })
    }

    pub(crate) fn get(&self, id: &Digest) -> Result<Option<Record>> {
        self.store.read(|c| {
            let mut statement = c.prepare_cached("SELECT * FROM images WHERE id = ?1")?;
            statement.query_row([id.to_string()], record).optional()?.transpose()
        })
    }

    pub(crate) fn all(&self) -> Result<Vec<Record>> {
        self.store.read(|c| rows(c, "SELECT * FROM images", [], record))
    }

    /// Up to two images whose id begins so: more would not tell more.
    pub(crate) fn with_prefix(&self, hex: &str) -> Result<Vec<Digest>> {
        self.store.read(|c| {
            rows(
                c,
                "SELECT id FROM images WHERE id >= 'sha256:' || ?1 AND id < 'sha256:' || ?1 || 'g' LIMIT 2",
                [hex],
                |row| Ok(digest(&row.get::<_, String>(0)?)),
            )
        })
    }

    /// The image that a reference names.
    pub(crate) fn named(&self, reference: &Reference) -> Result<Option<Digest>> {
        self.store.read(|c| named(c, reference))
    }

    /// The references of an image, sorted.
    pub(crate) fn references(&self, id: &Digest) -> Result<Vec<Reference>> {
        self.store.read(|c| {
            rows(
                c,
                "SELECT reference FROM image_references WHERE image = ?1 ORDER BY reference",
                [id.to_string()],
                |row| Ok(reference(&row.get::<_, String>(0)?)),
            )
        })
    }

    /// All references, sorted, with their images.
    pub(crate) fn all_references(&self) -> Result<Vec<(Reference, Digest)>> {
        self.store.read(|c| {
            rows(c, "SELECT reference, image FROM image_references ORDER BY reference", [], |row| {
                let (name, image) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
                Ok(reference(&name).and_then(|name| Ok((name, digest(&image)?))))
            })
        })
    }

    /// The layers of an image, the lowest first.
    pub(crate) fn layers(&self, id: &Digest) -> Result<Vec<LayerRecord>> {
        self.store.read(|c| {
            rows(
                c,
                "SELECT chain, blob, unpacked_bytes FROM image_layers WHERE image = ?1 ORDER BY position",
                [id.to_string()],
                |row| {
                    let (chain, blob) = (row.get::<_, String>(0)?, row.get::<_, String>(1)?);
                    let unpacked_bytes = unsigned(row.get(2)?);
                    Ok(digest(&chain).and_then(|chain| {
                        Ok(LayerRecord { chain, blob: digest(&blob)?, unpacked_bytes })
                    }))
                },
            )
        })
    }

    /// How many images have each layer, and its size.
    pub(crate) fn layer_counts(&self) -> Result<BTreeMap<Digest, (u64, u64)>> {
        let counts = self.store.read(|c| {
            rows(
                c,
                "SELECT chain, count(DISTINCT image), max(unpacked_bytes) FROM image_layers GROUP BY chain",
                [],
                |row| {
                    let (count, bytes) = (unsigned(row.get(1)?), unsigned(row.get(2)?));
                    Ok(digest(&row.get::<_, String>(0)?).map(|chain| (chain, (count, bytes))))
                },
            )
        })?;
        Ok(counts.into_iter().collect())
    }

    /// The size of a layer, where an image has it.
    pub(crate) fn layer_bytes(&self, chain: &Digest) -> Result<Option<u64>> {
        self.store.read(|c| {
            let mut statement = c.prepare_cached(
                "SELECT unpacked_bytes FROM image_layers WHERE chain = ?1 LIMIT 1",
            )?;
            Ok(statement.query_row([chain.to_string()], |row| row.get(0)).optional()?.map(unsigned))
        })
    }

    /// The known forms of a layer.
    pub(crate) fn forms(&self, diff_id: &Digest) -> Result<Vec<Descriptor>> {
        self.store.read(|c| {
            rows(
                c,
                "SELECT blob, media_type, bytes FROM layer_blobs WHERE diff_id = ?1 ORDER BY blob",
                [diff_id.to_string()],
                |row| {
                    let (media_type, bytes) = (row.get::<_, String>(1)?, unsigned(row.get(2)?));
                    Ok(digest(&row.get::<_, String>(0)?)
                        .map(|digest| Descriptor::new(&media_type, digest, bytes)))
                },
            )
        })
    }

    /// A further form of a layer.
    pub(crate) fn add_form(&self, blob: &LayerBlob) -> Result<()> {
        self.store.write(|t| add_blob(t, blob))
    }

    /// All that must not be collected but manifests' further content: manifests, configurations
    /// and layers, in each form.
    pub(crate) fn blobs(&self) -> Result<HashSet<Digest>> {
        let found = self.store.read(|c| {
            rows(
                c,
                "SELECT id FROM images UNION SELECT manifest FROM images
                 UNION SELECT blob FROM image_layers UNION SELECT blob FROM layer_blobs",
                [],
                |row| Ok(digest(&row.get::<_, String>(0)?)),
            )
        })?;
        Ok(found.into_iter().collect())
    }

    /// A repository was seen to have blobs.
    pub(crate) fn saw(&self, blobs: &[Digest], repository: &str) -> Result<()> {
        self.store.write(|t| {
            for blob in blobs {
                let blob = blob.to_string();
                t.prepare_cached("INSERT OR REPLACE INTO blob_sources VALUES (?1, ?2, ?3)")?
                    .execute((&blob, repository, nanoseconds(SystemTime::now())))?;
                t.prepare_cached(
                    "DELETE FROM blob_sources WHERE blob = ?1 AND repository NOT IN (
                     SELECT repository FROM blob_sources WHERE blob = ?1
                     ORDER BY seen_ns DESC LIMIT ?2)",
                )?
                .execute((&blob, SOURCES))?;
            }
            Ok(())
        })
    }

    /// Repositories (`domain/path`) that were seen to have the blob, the latest first.
    pub(crate) fn sources(&self, blob: &Digest) -> Result<Vec<String>> {
        self.store.read(|c| {
            rows(
                c,
                "SELECT repository FROM blob_sources WHERE blob = ?1 ORDER BY seen_ns DESC",
                [blob.to_string()],
                |row| Ok(Ok(row.get(0)?)),
            )
        })
    }
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
    mut map: impl FnMut(&Row<'_>) -> rusqlite::Result<Result<T>>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(parameters, |row| map(row))?;
    found.map(|row| row?).collect()
}

fn add_blob(t: &Transaction<'_>, blob: &LayerBlob) -> Result<()> {
    t.prepare_cached("INSERT OR IGNORE INTO layer_blobs VALUES (?1, ?2, ?3, ?4)")?.execute((
        blob.diff_id.to_string(),
        blob.blob.digest.to_string(),
        &blob.blob.media_type,
        integer(blob.blob.size),
    ))?;
    Ok(())
}

fn named(connection: &Connection, reference: &Reference) -> Result<Option<Digest>> {
    let mut statement =
        connection.prepare_cached("SELECT image FROM image_references WHERE reference = ?1")?;
    let found =
        statement.query_row([reference.to_string()], |row| row.get::<_, String>(0)).optional()?;
    found.map(|id| digest(&id)).transpose()
}

fn point(t: &Transaction<'_>, reference: &Reference, id: Digest) -> Result<Option<Digest>> {
    let previous = named(t, reference)?.filter(|previous| *previous != id);
    t.prepare_cached("INSERT OR REPLACE INTO image_references VALUES (?1, ?2)")?
        .execute((reference.to_string(), id.to_string()))?;
    t.execute(
        "UPDATE images SET tagged_ns = ?2 WHERE id = ?1",
        (id.to_string(), nanoseconds(SystemTime::now())),
    )?;
    Ok(previous)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Result<Record>> {
    let (id, manifest): (String, String) = (row.get(0)?, row.get(1)?);
    let (kind, bytes): (String, i64) = (row.get(2)?, row.get(3)?);
    let (parent, tagged): (String, i64) = (row.get(4)?, row.get(5)?);
    Ok(digest(&id).and_then(|id| {
        Ok(Record {
            id,
            manifest: Descriptor::new(&kind, digest(&manifest)?, unsigned(bytes)),
            parent: if parent.is_empty() { None } else { Some(digest(&parent)?) },
            tagged: UNIX_EPOCH + Duration::from_nanos(unsigned(tagged)),
        })
    }))
}

fn digest(text: &str) -> Result<Digest> {
    text.parse()
        .map_err(|cause| Error::corrupt("the table of images").because(anyhow::anyhow!("{cause}")))
}

fn reference(text: &str) -> Result<Reference> {
    text.parse().map_err(|cause| {
        Error::corrupt("the table of references").because(anyhow::anyhow!("{cause}"))
    })
}

fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}
