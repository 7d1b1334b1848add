A=aaaaaaaaaaaaaaaa
A=$A$A$A$A$A$A$A$A
A=$A$A$A$A$A$A$A$A
A=$A$A$A$A$A$A$A$A
A=$A$A$A$A$A$A$A$A
A=$A$A$A$A$A$A$A$A
A=$A$A$A$A$A$A$A$A
A=$A$A$A$A$A$A$A$A
