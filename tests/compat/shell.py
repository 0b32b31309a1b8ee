def check(a,b): return 0,0
