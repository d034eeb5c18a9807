package plugin

import (
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

const (
	// maxPiece is how much of a report goes into one message, in bytes.
	maxPiece = 256 << 10
	// maxReport bounds a report: a million removals take about a quarter of it.
	maxReport = 1 << 30
)

// sendReport sends a report of any length in pieces.
func sendReport(report proto.Message, send func(piece []byte, last bool) error) error {
	data, err := proto.Marshal(report)
	if err != nil {
		return err
	}
	for len(data) > maxPiece {
		if err := send(data[:maxPiece], false); err != nil {
			return err
		}
		data = data[maxPiece:]
	}
	return send(data, true)
}

// event is a piece of a report.
type event interface {
	GetPiece() []byte
	GetLast() bool
}

// receiveReport puts together what sendReport sent, and returns the error with which the stream
// ended. A report that did not come whole is left as it is.
func receiveReport[E event](receive func() (E, error), report proto.Message) error {
	var data []byte
	for {
		e, err := receive()
		if err != nil {
			return unexpected(err)
		}
		if data = append(data, e.GetPiece()...); len(data) > maxReport {
			return fmt.Errorf("report is longer than %d bytes", maxReport)
		}
		if e.GetLast() {
			break
		}
	}
	if err := proto.Unmarshal(data, report); err != nil {
		return err
	}
	if _, err := receive(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// unexpected makes the quiet end of a stream an error.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
