A=(
  --num-layers 4
python x.py
