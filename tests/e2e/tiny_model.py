"""Makes a real, tiny Llama checkpoint whose every answer is one known sentence.

Does not know vLLM, nor is it imported by us: it runs in the environment that has the libraries, as
`python tiny_model.py FOLDER CONTEXT_TOKENS ANSWER`.

No weights are downloaded, and random ones would answer noise that no test can recognize. Here the
layers add nothing to the residual stream, so the next token depends on the last one alone, and the
output head is written so that each token of ANSWER asks for the one after it, up to the end of
sequence. A request that forbids the end (`min_tokens`) hears ANSWER again on a new line, and so on.
The engine still does all its work: attention, key-value cache, batching, metrics.
"""
# mypy: disable-error-code="import-not-found"

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BEGIN_ANSWER, END = "<|assistant|>", "<|end|>"
NEW_LINE = "Ċ"  # as the byte-level alphabet writes it
VOCABULARY = 512
ANSWER_TOKENS_MAX = 10_000  # the server's bound: no answer runs to the end of the context
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


def model(follows: dict[int, list[int]], context_tokens: int, end: int) -> LlamaForCausalLM:
    """A Llama that continues each token with the first of its followers that is allowed."""
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
            eos_token_id=end,
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
        for token, wanted in follows.items():
            for rank, following in enumerate(wanted):
                llama.lm_head.weight[following] += 8 * embedding[token] / (rank + 1)
    return llama.to(torch.bfloat16)


def main(folder: Path, context_tokens: int, answer: str) -> None:
    """Write tokenizer, weights and generation settings into `folder`."""
    words = tokenizer(answer)
    said = words.tokenize(answer)
    begin, *chain, new_line, end = words.convert_tokens_to_ids([BEGIN_ANSWER, *said, NEW_LINE, END])
    if len(set(chain)) != len(chain):
        sys.exit("a token of the answer repeats: the model could not tell what follows it")
    follows = {token: [following] for token, following in zip(chain, chain[1:], strict=False)}
    follows |= {begin: [chain[0]], chain[-1]: [end, new_line], new_line: [chain[0]]}
    words.save_pretrained(folder)
    llama = model(follows, context_tokens, end)
    llama.generation_config = GenerationConfig(
        max_new_tokens=ANSWER_TOKENS_MAX, do_sample=False, eos_token_id=end
    )
    llama.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
