#!/usr/bin/busybox sh
# The first process of a machine of the lab. The kernel runs it in its first file system, then it runs itself in a copy.
if [ "$1" != moved ]; then
    busybox=/usr/bin/busybox
    $busybox mount -t tmpfs -o mode=755,size=90% root /mnt
    for each in /*; do
        [ "$each" = /mnt ] || $busybox cp -a "$each" /mnt/
    done
    $busybox mkdir -p /mnt/mnt
    exec $busybox switch_root /mnt /init moved
fi
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
/usr/bin/busybox --install -s 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
chmod 1777 /tmp /dev/shm
for module in $(cat /modules/order); do
    insmod /modules/$module.ko
done
ip link set lo up
# Orders: the length of a script in a line, then the script. Answers: how it ended and the length of what it said in a
# line, then that.
exec </dev/hvc0 >/dev/hvc0 2>/dev/console
stty raw -echo
echo ready
while read -r length; do
    head -c "$length" >/run/order
    sh /run/order </dev/null >/run/answer 2>&1
    echo "$? $(stat -c %s /run/answer)"
    cat /run/answer
done
poweroff -f
