terraform import flintlock_microvm_group.web demo/web
