#!/bin/sh
# The demo guest's first process. It loads the drivers, takes its identity and its network from the NoCloud seed (the
# volume labelled `cidata`), counts its boots on the root volume when there is one, says `flintlock: ready` on the
# serial console, and powers off in order when the host presses the power button.
/bin/busybox mkdir -p /proc /sys /dev /run /mnt /seed /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev 2>/dev/null
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root

while read -r module; do
    insmod "/modules/$module.ko" 2>/dev/null || echo "init: module $module did not load"
done < /modules/order

# Power button first: a host may ask for a shutdown at any time from here on. 90 ms after a press nothing is lost.
acpid -f -l /dev/null -c /etc/acpi &

name=$(hostname)
uid=unknown
keys=0
seed=
for device in /dev/vd?; do
    # The volume label of an ISO 9660 file system.
    label=$(dd if="$device" bs=1 skip=32808 count=6 2>/dev/null | tr A-Z a-z)
    [ "$label" = cidata ] && seed=$device
done
if [ -n "$seed" ] && mount -t iso9660 -o ro "$seed" /seed 2>/dev/null; then
    for file in /seed/*; do [ -f "$file" ] && keys=$((keys + 1)); done
    name=$(sed -n 's/^local-hostname: *//p' /seed/meta-data | tr -d "\"'" | head -n 1)
    uid=$(sed -n 's/^instance-id: *//p' /seed/meta-data | tr -d "\"'" | head -n 1)
    [ -n "$name" ] && hostname "$name"
fi

# Static addresses: the simple block style that the host writes into network-config, matched by hardware address.
ip link set lo up
configure_network() {
    device=
    while read -r key value; do
        value=$(echo "$value" | tr -d "\"'")
        case "$key" in
            macaddress:)
                device=
                for entry in /sys/class/net/*; do
                    [ "$(cat "$entry/address")" = "$value" ] && device=${entry##*/}
                done
                [ -n "$device" ] && ip link set "$device" up && echo "init: $device is up ($value)"
                list=
                ;;
            addresses:) list=${nameservers:-addresses}; nameservers= ;;
            nameservers:) nameservers=nameservers ;;
            routes:) list= ;;
            via:) [ -n "$device" ] && ip route add default via "$value" dev "$device" 2>/dev/null && echo "init: default route via $value" ;;
            -)
                [ "$list" = addresses ] && [ -n "$device" ] && ip addr add "$value" dev "$device" && echo "init: $device has $value"
                [ "$list" = nameservers ] && echo "nameserver $value" >> /etc/resolv.conf
                ;;
            *) ;;
        esac
    done < /seed/network-config
}
[ -f /seed/network-config ] && configure_network

# The root volume, when it is a file system: count the boots on it, so that one can see that volumes are kept.
if [ -b /dev/vda ] && [ "$seed" != /dev/vda ] && mount -t ext4 /dev/vda /mnt 2>/dev/null; then
    boots=$(cat /mnt/boots 2>/dev/null || echo 0)
    boots=$((boots + 1))
    if echo "$boots" > /mnt/boots 2>/dev/null; then
        sync
        echo "init: root volume $(cat /sys/class/block/vda/size) sectors, boot $boots"
    else
        echo "init: root volume is read-only"
    fi
fi

echo "init: $(grep -c '^processor' /proc/cpuinfo) vcpu, $(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) kB memory"
echo "hello from $name ($uid), kernel $(uname -r), $keys metadata keys"
echo "flintlock: ready"

# Echoes what is typed on the serial console; children are reaped because the shell waits for each.
while true; do
    if read -r line; then echo "you said: $line"; else sleep 3600 & wait $!; fi
done
