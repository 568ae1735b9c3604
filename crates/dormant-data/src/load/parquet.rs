//! Parquet files, through the record API of the `parquet` crate.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::Value;

use super::jsonl::within;
use super::rows::{FIELDS, Row};
use super::{MAX_FILE_BYTES, MAX_ROW_BYTES};
use crate::error::{DataError, FieldError};

/// The rows of a file, numbered from 1, with the fields that some format reads.
pub(super) fn rows(path: &Path) -> Result<Vec<(usize, Row)>, DataError> {
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    within(path, "its size in bytes", MAX_FILE_BYTES, file.metadata().map_err(io)?.len())?;
    // The decoders assert that the parts of a file agree with each other, which a damaged one's do not.
    catch_unwind(AssertUnwindSafe(|| read(path, file)))
        .unwrap_or_else(|_| Err(damaged(path, "its parts contradict each other; write the file again")))
}

fn damaged(path: &Path, message: impl Into<String>) -> DataError {
    DataError::Parquet { path: path.to_owned(), message: message.into() }
}

fn read(path: &Path, file: File) -> Result<Vec<(usize, Row)>, DataError> {
    let parquet = |source: ParquetError| damaged(path, source.to_string());
    let reader = SerializedFileReader::new(file).map_err(parquet)?;
    check_columns(path, &reader)?;
    let mut total = 0;
    let mut rows = Vec::new();
    let records = reader.get_row_iter(Some(projection(path, &reader)?)).map_err(parquet)?;
    for (index, record) in records.enumerate() {
        let mut bytes = 0;
        let columns = record.map_err(parquet)?.into_columns().into_iter();
        let row = columns.map(|(name, field)| (name, value(field, &mut bytes))).collect();
        total += bytes;
        within(path, "the text of a row in bytes", MAX_ROW_BYTES, bytes)?;
        within(path, "its text in bytes", MAX_FILE_BYTES, total)?;
        rows.push((index + 1, row));
    }
    Ok(rows)
}

/// Checks that the sizes that the file states are possible before anything is allocated for them.
fn check_columns(path: &Path, reader: &SerializedFileReader<File>) -> Result<(), DataError> {
    let columns = reader.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
    for column in columns {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let sizes = [start, column.compressed_size(), column.uncompressed_size()];
        if sizes.iter().any(|size| *size < 0) {
            return Err(damaged(
                path,
                format!("column `{}` has a negative size or offset", column.column_path()),
            ));
        }
        within(path, "a column in bytes", MAX_FILE_BYTES, column.uncompressed_size() as u64)?;
    }
    Ok(())
}

/// The columns that some format reads, which must be text; the others may have any type.
fn projection(path: &Path, reader: &SerializedFileReader<File>) -> Result<Type, DataError> {
    let schema = reader.metadata().file_metadata().schema_descr().root_schema();
    let known = |column: &&Arc<Type>| FIELDS.contains(&column.name());
    let columns: Vec<Arc<Type>> = schema.get_fields().iter().filter(known).cloned().collect();
    if columns.is_empty() {
        let found = schema.get_fields().iter().take(20).map(|column| column.name().to_owned()).collect();
        let source = FieldError::UnknownFormat { found };
        return Err(DataError::Row { path: path.to_owned(), row: 1, source });
    }
    if let Some(column) = columns.iter().find(|column| !is_text(column)) {
        return Err(damaged(
            path,
            format!("column `{}`: expected text, or a list of messages of text", column.name()),
        ));
    }
    let projection = Type::group_type_builder(schema.name()).with_fields(columns).build();
    projection.map_err(|source| damaged(path, source.to_string()))
}

/// Whether all leaves of a column are byte strings.
fn is_text(column: &Type) -> bool {
    match column {
        Type::PrimitiveType { physical_type, .. } => *physical_type == PhysicalType::BYTE_ARRAY,
        Type::GroupType { fields, .. } => fields.iter().all(|field| is_text(field)),
    }
}

/// A field as JSON; adds the length of its text to `bytes`.
fn value(field: Field, bytes: &mut u64) -> Value {
    match field {
        Field::Str(text) => {
            *bytes += text.len() as u64;
            Value::String(text)
        }
        // Some writers leave out the mark that says that a column is UTF-8.
        Field::Bytes(data) => {
            *bytes += data.len() as u64;
            String::from_utf8(data.data().to_vec()).map_or(Value::Null, Value::String)
        }
        Field::Group(row) => Value::Object(
            row.into_columns().into_iter().map(|(name, field)| (name, value(field, bytes))).collect(),
        ),
        Field::ListInternal(list) => {
            Value::Array(list.elements().iter().map(|field| value(field.clone(), bytes)).collect())
        }
        _ => Value::Null,
    }
}
