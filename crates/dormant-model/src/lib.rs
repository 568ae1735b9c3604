//! dormant-model

pub mod atomic;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod chat_template;
pub mod tokenizer;
pub mod batch;
pub mod generate;
pub mod head;
pub mod kv_cache;
pub mod linear;
pub mod llama;
pub mod load;
pub mod lora;
pub mod parameter;
pub mod sampler;
pub mod adapter_files;
pub mod source;
