package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
	"github.com/berthoci/berth/sdk/remote/auth"
)

const (
	maxErrorBody    = 64 << 10
	maxErrorMessage = 300
)

// Error is a registry's refusal.
type Error struct {
	// Method and URL of the request; the URL without its query.
	Method, URL string
	// Status of the answer.
	Status int
	// Name is what the registry is called instead, if it has a name: see [Options.Name].
	Name string
	// Advice says what to do next, where there is something that can be known. May be empty.
	Advice string
	// Errors are what the registry said, with code, message and detail. Where it said nothing that
	// can be read, there is one, made from the status.
	Errors []*berth.Error
}

// Error tells all of it in one line. Of a registry that has a name it tells what that said.
func (e *Error) Error() string {
	texts := make([]string, len(e.Errors))
	for i, one := range e.Errors {
		texts[i] = one.Error()
		if e.Name == "" && one.Message != "" && !strings.Contains(strings.ToUpper(one.Message), one.Code) {
			texts[i] = one.Code + ": " + one.Message
		}
		texts[i] += e.about(one)
	}
	said := strings.Join(texts, "; ")
	if e.Name != "" {
		return said
	}
	if e.Advice != "" {
		said += "; " + e.Advice
	}
	return fmt.Sprintf("%s %s: status %d: %s", e.Method, e.URL, e.Status, said)
}

// about names the content that an error is about, where only its detail does.
func (e *Error) about(one *berth.Error) string {
	for _, d := range digest.DigestRegexp.FindAllString(one.Detail, -1) {
		if digest.Digest(d).Validate() == nil && !strings.Contains(one.Message+e.URL, d) {
			return ": " + d
		}
	}
	return ""
}

// Unwrap returns the parts, so that [errors.Is] finds their codes.
func (e *Error) Unwrap() []error {
	all := make([]error, len(e.Errors))
	for i, one := range e.Errors {
		all[i] = one
	}
	return all
}

// newError reads a refusal and closes its body.
func (r *Registry) newError(req ocirequest.Request, resp *http.Response, trace *auth.Trace) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	resp.Body.Close()
	e := &Error{Method: resp.Request.Method, URL: plainURL(resp.Request.URL), Status: resp.StatusCode, Name: r.name}
	e.Errors = parseErrors(body)
	if fallback := byStatus(req.Kind, resp.StatusCode); fallback != "" && !e.tells(resp.StatusCode) {
		said := e.Errors
		e.Errors = []*berth.Error{{Code: fallback, Message: message(said, body)}}
	}
	if len(e.Errors) == 0 {
		e.Errors = []*berth.Error{{Code: "UNKNOWN", Message: message(nil, body)}}
		e.Advice = "it does not answer as a registry does; check the address"
		if resp.StatusCode == http.StatusBadRequest && resp.Request.URL.Scheme == "http" {
			e.Advice = "it does not answer as a registry does; if it speaks https, write https://" + resp.Request.URL.Host
		}
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		e.Advice = r.advise(resp.Request.Context(), trace.Granted || strings.Contains(resp.Header.Get("WWW-Authenticate"), "insufficient_scope"))
	case http.StatusTooManyRequests:
		e.Advice = tooMuch(resp.Header)
	}
	return e
}

// tooMuch tells what a registry says of its limits.
func tooMuch(h http.Header) string {
	said := []string{}
	if limit, ok := readRateLimit(h); ok {
		said = append(said, fmt.Sprintf("%d of %d requests remain in %v", limit.Remaining, limit.Limit, limit.Window))
	}
	if wait, ok := retryAfter(h, time.Now()); ok {
		said = append(said, fmt.Sprintf("it may be asked again in %v", wait.Round(time.Second)))
	}
	return strings.Join(said, "; ")
}

// advise tells why a registry may have refused. A credential for which a token server has given a token is good.
func (r *Registry) advise(ctx context.Context, good bool) string {
	shown, err := r.credentials(ctx, r.base.Host)
	if good && err == nil && shown != (auth.Credential{}) {
		return "the login is good, but does not allow this"
	}
	return r.adviseLogin(ctx)
}

// adviseLogin tells which credential was shown and what may help.
func (r *Registry) adviseLogin(ctx context.Context) string {
	host := r.base.Host
	shown, err := r.credentials(ctx, host)
	switch {
	case err != nil:
		return ""
	case shown == auth.Credential{}:
		return fmt.Sprintf("no credentials are stored for %s: docker login %s stores them", host, host)
	case shown.Username == "":
		return fmt.Sprintf("%s refused the stored token: docker login %s stores another", host, host)
	}
	return fmt.Sprintf("%s refused user %s: docker login %s stores other credentials", host, clip(shown.Username), host)
}

// tells reports whether what the registry said is at least as exact as its status.
func (e *Error) tells(status int) bool {
	for _, one := range e.Errors {
		if status != http.StatusNotFound && one.Code != "UNKNOWN" || strings.HasSuffix(one.Code, "_UNKNOWN") {
			return true
		}
	}
	return false
}

// parseErrors reads the specification's error body, or nothing where it is something else.
func parseErrors(body []byte) []*berth.Error {
	var parsed struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &parsed) != nil {
		return nil
	}
	var all []*berth.Error
	for _, one := range parsed.Errors {
		if one.Code != "" {
			all = append(all, &berth.Error{Code: clip(one.Code), Message: clip(one.Message), Detail: clip(string(one.Detail))})
		}
	}
	return all
}

// byStatus is the code for an answer that has none, or none that fits.
func byStatus(kind ocirequest.Kind, status int) string {
	switch status {
	case http.StatusUnauthorized:
		return berth.Code(berth.ErrUnauthorized)
	case http.StatusForbidden:
		return berth.Code(berth.ErrDenied)
	case http.StatusNotFound:
		return berth.Code(absent(kind))
	case http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType:
		return berth.Code(berth.ErrUnsupported)
	case http.StatusPreconditionFailed:
		return berth.Code(berth.ErrPreconditionFailed)
	case http.StatusRequestedRangeNotSatisfiable:
		return berth.Code(berth.ErrRangeInvalid)
	case http.StatusRequestEntityTooLarge:
		return berth.Code(berth.ErrSizeInvalid)
	case http.StatusTooManyRequests:
		return berth.Code(berth.ErrTooManyRequests)
	}
	return ""
}

// absent is what 404 means for a kind of request.
func absent(kind ocirequest.Kind) error {
	switch kind {
	case ocirequest.BlobGet, ocirequest.BlobHead, ocirequest.BlobDelete:
		return berth.ErrBlobUnknown
	case ocirequest.ManifestGet, ocirequest.ManifestHead, ocirequest.ManifestDelete:
		return berth.ErrManifestUnknown
	case ocirequest.UploadStatus, ocirequest.UploadChunk, ocirequest.UploadFinish, ocirequest.UploadCancel:
		return berth.ErrUploadUnknown
	case ocirequest.Ping, ocirequest.Catalog:
		return berth.ErrUnsupported
	}
	return berth.ErrNameUnknown
}

// message is the best text for people: what was said, or the body if that is a line of plain text.
func message(said []*berth.Error, body []byte) string {
	if len(said) > 0 {
		return said[0].Message
	}
	text := strings.TrimSpace(string(body))
	if text == "" || strings.ContainsAny(text[:1], "<{[") {
		return ""
	}
	line, _, _ := strings.Cut(text, "\n")
	return clip(line)
}

// clip bounds a text from outside and takes out what could disturb a terminal.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > maxErrorMessage {
		s = s[:maxErrorMessage] + "…"
	}
	return s
}

// plainURL leaves out the query, which may hold what signs an upload.
func plainURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
