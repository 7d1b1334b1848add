case $1 in
 a) A=1;;
