package schema1

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/berthoci/berth/manifest"
)

// maxSignatures bounds the work of Verify. Registries that collected the signatures of all who
// pushed the same manifest had a handful.
const maxSignatures = 32

// space is what JSON takes for white space.
const space = " \t\r\n"

// signature is one element of signatures: RFC 7515's general serialization without the payload.
type signature struct {
	// header is not signed.
	header json.RawMessage
	// protected and value are base64url, as they stand.
	protected, value string
	frame            frame
}

// frame tells how the payload is got back from the file.
type frame struct {
	// length of the file's beginning that is payload.
	length int
	// tail is what the payload has after that.
	tail string
}

func parseSignatures(raw json.RawMessage) ([]signature, error) {
	var blocks []json.RawMessage
	if err := json.Unmarshal(raw, &blocks); err != nil {
		return nil, invalid("signatures: %s", describe(err))
	}
	if len(blocks) == 0 || len(blocks) > maxSignatures {
		return nil, invalid("it has %d signatures, 1 to %d are allowed", len(blocks), maxSignatures)
	}
	signatures := make([]signature, len(blocks))
	for i, block := range blocks {
		if err := signatures[i].read(block); err != nil {
			return nil, &SignatureError{Index: i, Reason: err.Error()}
		}
	}
	return signatures, nil
}

func (s *signature) read(raw json.RawMessage) error {
	err := readObject(raw, field{"header", &s.header}, field{"protected", &s.protected}, field{"signature", &s.value})
	if err != nil {
		return err
	}
	if err := only(raw, "header", "protected", "signature"); err != nil {
		return err
	}
	if _, err := decode64(s.value); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	protected, err := decode64(s.protected)
	if err != nil {
		return fmt.Errorf("protected: %w", err)
	}
	if err := s.frame.read(protected); err != nil {
		return fmt.Errorf("protected: %w", err)
	}
	return nil
}

// read takes a protected header. Members that libtrust did not write are refused: some of them
// (alg, b64, crit) would change what is signed, or how.
func (f *frame) read(protected []byte) error {
	if err := manifest.CheckJSON(protected); err != nil {
		return err
	}
	var tail, time string
	err := readObject(protected, field{"formatLength", &f.length}, field{"formatTail", &tail}, field{"time", &time})
	if err != nil {
		return err
	}
	if err := only(protected, "formatLength", "formatTail", "time"); err != nil {
		return err
	}
	decoded, err := decode64(tail)
	if err != nil {
		return fmt.Errorf("formatTail: %w", err)
	}
	f.tail = string(decoded)
	if f.length <= 0 || strings.Trim(f.tail, space) != "}" {
		return errors.New("formatLength and formatTail do not make an object")
	}
	return nil
}

// reconstruct returns the payload that all signatures agree on. It is not yet known to be JSON; if it
// is, it has the members of the file but for signatures, so CheckJSON has seen them.
func reconstruct(file []byte, signatures []signature) ([]byte, error) {
	agreed := signatures[0].frame
	for i, s := range signatures {
		if s.frame != agreed {
			return nil, &SignatureError{Index: i, Reason: "it is over another payload than signature 0"}
		}
	}
	if agreed.length > len(file) {
		return nil, &SignatureError{Index: 0, Reason: "formatLength is beyond the end of the manifest"}
	}
	head, rest := file[:agreed.length], file[agreed.length:]
	if !holdsSignatures(rest) {
		return nil, invalid("it is not its payload and signatures: there is more, or formatLength is wrong")
	}
	return append(bytes.Clone(head), agreed.tail...), nil
}

// holdsSignatures reports whether the rest of the file, after the payload, is the member signatures
// and nothing else. A reader that takes the file for the manifest then reads the payload, too.
func holdsSignatures(rest []byte) bool {
	rest = bytes.TrimLeft(rest, space)
	if len(rest) == 0 || rest[0] != ',' {
		return false
	}
	object := bytes.Clone(rest)
	object[0] = '{'
	return only(object, "signatures") == nil
}

// decode64 takes base64url in the one form that encode64 gives: without padding, line ends and
// stray bits.
func decode64(s string) ([]byte, error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("it is not base64url without padding")
	}
	return decoded, nil
}

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
