"""etcd: state and leader election for a group of schedulers. The HTTP/JSON gateway of etcd 3.4 or newer."""
