if [ $A = 1 ]; then
  B=1
python x.py
