f() {
  f
}
f
