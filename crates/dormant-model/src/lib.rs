//! Weights in; logits, gradients, text and activations out.
//!
//! [`checkpoint::Checkpoint`] reads a model's files, [`llama::Llama`] runs and differentiates it, [`adapter::Adapter`]
//! changes it, [`llama::Llama::generate`] lets it speak. [`tokenizer::Tokenizer`] and
//! [`chat_template::ChatTemplate`] turn text into tokens and back, and [`source`] finds a model by its name.
//!
//! A [`batch::Batch`] is packed and ragged; what its sequences have in common at their beginning is computed once.

pub mod adapter;
pub mod adapter_files;
pub mod atomic;
pub mod base;
pub mod batch;
pub mod chat_template;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod family;
pub mod generate;
pub mod head;
pub mod kv_cache;
pub mod linear;
pub mod llama;
pub mod lora;
pub mod memory;
pub mod parameter;
pub mod sampler;
pub mod scalar_head;
pub mod source;
pub mod tokenizer;

pub use error::{Error, Result};
