terraform import 'flintlock_microvm.web["a"]' demo/web-a
