package ocilayout

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// readQueue is reads of a file, past the system's memory, that the system does while its caller does something else:
// see io_submit(2). A goroutine for each read would do too, and has to wait for a core when it comes back: those
// that hash have them all.
type readQueue struct {
	id     uintptr
	gone   bool
	file   *os.File
	reads  []queuedRead
	events []readEvent
}

type queuedRead struct {
	request readRequest
	buf     []byte
	pending bool
	n       int // what was read; not more than 0: nothing
}

// readRequest is what the system calls struct iocb.
type readRequest struct {
	data    uint64
	_       [2]uint32
	command uint16
	_       int16
	file    uint32
	buf     uint64
	size    uint64
	offset  int64
	_       uint64
	_, _    uint32
}

// readCommand is what the system calls IOCB_CMD_PREAD.
const readCommand = 0

// readEvent is what the system calls struct io_event.
type readEvent struct {
	data, _ uint64
	result  int64
	_       int64
}

// newReadQueue is a queue with as many reads as there are buffers. The caller ends its reads before he does anything else
// with them.
func newReadQueue(file *os.File, bufs [][]byte) (*readQueue, error) {
	q := &readQueue{file: file, reads: make([]queuedRead, len(bufs)), events: make([]readEvent, len(bufs))}
	for i, buf := range bufs {
		q.reads[i].buf = buf
	}
	_, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(len(bufs)), uintptr(unsafe.Pointer(&q.id)), 0)
	if errno != 0 {
		return nil, errno
	}
	return q, nil
}

// begin begins to read at an offset into a buffer.
func (q *readQueue) begin(i int, offset, size int64) {
	r := &q.reads[i]
	at := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(r.buf))))
	r.request = readRequest{data: uint64(i), command: readCommand, file: uint32(q.file.Fd()), buf: at, size: uint64(size), offset: offset}
	request := &r.request
	submitted, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, q.id, 1, uintptr(unsafe.Pointer(&request)))
	r.n, r.pending = 0, errno == 0 && submitted == 1
}

// wait is what was read into a buffer, or nothing where it could not be.
func (q *readQueue) wait(i int) []byte {
	r := &q.reads[i]
	for r.pending {
		n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, q.id, 1, uintptr(len(q.events)), uintptr(unsafe.Pointer(&q.events[0])), 0, 0)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			q.abandon()
			break
		}
		for _, event := range q.events[:n] {
			done := &q.reads[event.data]
			done.pending, done.n = false, int(event.result)
		}
	}
	return r.buf[:max(r.n, 0)]
}

// abandon ends all reads where what they have read cannot be known.
func (q *readQueue) abandon() {
	q.forget()
	q.gone = true
	for i := range q.reads {
		q.reads[i].pending = false
	}
}

// end waits for what was begun.
func (q *readQueue) end() {
	for i := range q.reads {
		q.wait(i)
	}
}

// forget gives the queue back, when its reads have ended, for which the system takes some hundredths of a second.
func (q *readQueue) forget() {
	if q.gone {
		return
	}
	_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, q.id, 0, 0)
}
