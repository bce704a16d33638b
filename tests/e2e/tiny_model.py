"""Makes a real, tiny Llama checkpoint whose every answer is one known sentence.

Does not know vLLM, nor is it imported by us: it runs in the environment that has the libraries, as
`python tiny_model.py FOLDER CONTEXT_TOKENS ANSWER`.

No weights are downloaded, and random ones would answer noise that no test can recognize. Here the
layers add nothing to the residual stream, so the next token depends on the last one alone, and the
output head is written so that each token of ANSWER asks for the one after it, up to the end of
sequence. The engine still does all its work: attention, key-value cache, batching, metrics.
"""
# mypy: disable-error-code="import-not-found"

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BEGIN_ANSWER, END = "<|assistant|>", "<|end|>"
VOCABULARY = 512
CHAT_TEMPLATE = (
    "{% if tools %}<|tools|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(answer: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE, so that any text can be read, which knows the answer's words."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|tools|>", "<|system|>", "<|user|>", BEGIN_ANSWER, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([answer] * 10, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=END, chat_template=CHAT_TEMPLATE
    )


def model(chain: list[int], context_tokens: int) -> LlamaForCausalLM:
    """A Llama that continues each token of `chain` with the next one."""
    torch.manual_seed(0)
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=context_tokens,
            eos_token_id=chain[-1],
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        for layer in llama.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding = torch.nn.functional.normalize(torch.randn(VOCABULARY, 128))
        llama.model.embed_tokens.weight.copy_(embedding)
        llama.lm_head.weight.zero_()
        for token, following in zip(chain, chain[1:], strict=False):
            llama.lm_head.weight[following] = 8 * embedding[token]
    return llama.to(torch.bfloat16)


def main(folder: Path, context_tokens: int, answer: str) -> None:
    """Write tokenizer, weights and generation settings into `folder`."""
    words = tokenizer(answer)
    chain = words.convert_tokens_to_ids([BEGIN_ANSWER, *words.tokenize(answer), END])
    if len(set(chain)) != len(chain):
        sys.exit("a token of the answer repeats: the model could not tell what follows it")
    words.save_pretrained(folder)
    llama = model(chain, context_tokens)
    # A bound of its own, so that no answer runs to the end of the context whatever the sampling.
    llama.generation_config = GenerationConfig(
        max_new_tokens=48, do_sample=False, eos_token_id=chain[-1]
    )
    llama.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
