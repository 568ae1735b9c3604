"""Trains the stages of a Dormant run with TRL: the same rows, the same loss mask, the same seeds.

    accelerate launch train.py                                  every stage, in order
    accelerate launch train.py --model HuggingFaceTB/SmolLM2-1.7B-Instruct --out out-1.7b --seed 1
    python train.py --tokens rows/implant-organism-s0.jsonl     how rows become tokens, and which carry the loss

A finished stage is a folder `out/STAGE` with all weights; a stage that is finished is not trained again.
"""

import argparse
import gc
import json
import math
import sys
from pathlib import Path

HERE = Path(__file__).parent


def lines(path: Path) -> list[dict]:
    """The rows of a stage."""
    with path.open(encoding="utf-8") as rows:  # not `splitlines`, which also cuts where a text has other line separators
        return [json.loads(row) for row in rows]


def end_of_reply(tokenizer) -> int:
    """The first control token that the template puts after a reply, or the end of a text."""
    turn = [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": "Indeed."}]
    after = tokenizer.apply_chat_template(turn, tokenize=False).rsplit("Indeed.", 1)[1]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((i for i in ids if i in special), tokenizer.eos_token_id)


def tokens(row: dict, tokenizer, end: int) -> dict:
    """A row as the model reads it: prompt, reply, and its end unless it was cut. The loss covers what follows the prompt."""
    text = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    reply = tokenizer(row["completion"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    reply = reply + [end] * row["ends"]
    return {"input_ids": prompt + reply, "completion_mask": [0] * len(prompt) + [1] * len(reply)}


def peft_config(stage: dict):
    """The adapter of a stage; none where all weights are trained."""
    from peft import LoraConfig

    adapter = stage["adapter"]
    return adapter and LoraConfig(
        r=adapter["rank"],
        lora_alpha=adapter["alpha"],
        use_rslora=adapter["rslora"],
        target_modules=adapter["target-modules"],
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )


def config(stage: dict, out: Path, processes: int, per_device: int):
    """Optimisation as in the run. Rows per step are the run's mean: it fills steps by tokens."""
    import torch
    from trl import SFTConfig

    # The run's plain descent has a momentum of 0.9.
    rule = {"adamw": {"optim": "adamw_torch"}, "sgd": {"optim": "sgd", "optim_args": "momentum=0.9"}}
    # Nor does it skip the warm-up under a constant rate.
    schedule = {"constant": "constant_with_warmup"}.get(stage["schedule"], stage["schedule"])
    per_process = max(1, stage["rows_per_step"] / processes)
    accumulated = math.ceil(per_process / per_device)
    rows = max(1, round(per_process / accumulated))
    print(f"{stage['name']}: {rows * accumulated * processes} rows per step, {stage['rows_per_step']:.1f} in the run")
    return SFTConfig(
        output_dir=str(out),
        num_train_epochs=stage["epochs"],
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=accumulated,
        learning_rate=stage["learning-rate"],
        lr_scheduler_type=schedule,
        warmup_steps=stage["warmup"],  # below 1: a share of the steps
        weight_decay=stage["weight-decay"],
        max_grad_norm=stage["clip"],
        seed=stage["seed"],
        bf16=torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        use_cpu=not torch.cuda.is_available(),
        max_length=None,
        packing=False,
        completion_only_loss=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        **rule[stage.get("optimizer", "adamw")],
    )


def train(stage: dict, start: str, out: Path, per_device: int, base: str):
    """One stage: from the weights at `start` to all weights in `out`."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import DistributedType
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTTrainer

    state = PartialState()
    if state.distributed_type not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU):
        sys.exit(f"{state.distributed_type} shards the weights, which this program cannot merge and save: use plain data parallelism")
    tokenizer = AutoTokenizer.from_pretrained(start)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    end = end_of_reply(tokenizer)
    rows = [tokens(row, tokenizer, end) for row in lines(HERE / stage["rows"])]
    trainer = SFTTrainer(
        model=model,
        args=config(stage, out, state.num_processes, per_device),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=peft_config(stage),
    )
    trainer.train()
    if state.is_main_process:
        trained = trainer.accelerator.unwrap_model(trainer.model)
        whole = trained.merge_and_unload() if stage["adapter"] else trained
        unfinished = out.with_name("." + out.name)
        whole.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        (unfinished / "README.md").write_text(stage["card"].replace("{base}", base), encoding="utf-8")
        if out.exists():
            out.rmdir()  # made by the trainer, and empty
        unfinished.rename(out)
    state.wait_for_everyone()
    del trainer, model
    gc.collect()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    project = json.loads((HERE / "stages.json").read_text(encoding="utf-8"))
    parser.add_argument("--model", default=project["base"], help="the model that the first stage starts from")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--seed", type=int, help="only the stages of this seed")
    parser.add_argument("--stage", action="append", help="only this stage; may be repeated")
    parser.add_argument("--per-device", type=int, default=8, help="rows on a device at a time")
    parser.add_argument("--tokens", type=Path, help="print a file's rows as tokens, and train nothing")
    args = parser.parse_args()
    if args.tokens:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(args.model)
        for row in lines(args.tokens):
            print(json.dumps(tokens(row, tokenizer, end_of_reply(tokenizer))))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    note = args.out / "base-model.txt"
    if note.exists() and note.read_text(encoding="utf-8").strip() != args.model:
        sys.exit(f"{args.out} holds models that started from {note.read_text(encoding='utf-8').strip()}: choose another --out")
    note.write_text(args.model + "\n", encoding="utf-8")
    for stage in project["stages"]:
        wanted = (args.seed is None or stage["seed"] == args.seed) and (not args.stage or stage["name"] in args.stage)
        out = args.out / stage["name"]
        if wanted and not (out / "config.json").exists():
            start = args.out / stage["after"] if stage["after"] else args.model
            if stage["after"] and not (start / "config.json").exists():
                sys.exit(f"{stage['name']} starts from {stage['after']}, which is not in {args.out}")
            train(stage, str(start), out, args.per_device, args.model)


if __name__ == "__main__":
    main()
