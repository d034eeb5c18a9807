package ocilayout

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// newSlab is memory in large pages, where the system has such: to read and write files past the system's memory each
// page is looked up anew, and of small ones that takes a tenth of what a blob takes. It is given back with its stock.
func (c *chunks) newSlab(size int) []byte {
	slab, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]byte, size)
	}
	_ = unix.Madvise(slab, unix.MADV_HUGEPAGE) // or in small ones
	runtime.AddCleanup(c, func(slab []byte) { _ = unix.Munmap(slab) }, slab)
	return slab
}
