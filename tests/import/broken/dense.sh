python pretrain_gpt.py --num-layers 8 --hidden-size 1024 --num-attention-heads 16 --seq-length 2048 --micro-batch-size 2  --swiglu --bf16 --vocab-size 1000 --moe-token-dispatcher-type alltoall
