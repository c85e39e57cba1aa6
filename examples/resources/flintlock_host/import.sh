terraform import flintlock_host.h1 h1
