package hostile

import (
	"net/http"
	"strings"
)

// Options say how a Registry behaves. The zero value lets everybody do everything, in good manners.
type Options struct {
	// Tokens wants one of its tokens for each request (rows 1 to 8). It is served at /token, too.
	// Nil: none is wanted.
	Tokens *TokenServer
	// Users wants Basic authentication, by these passwords (rows 1 and 10). Nil: none is wanted.
	Users map[string]string
	// BadPassword is the status for a wrong password. Zero: 401.
	BadPassword int
	// Public lets who shows no authorisation at all pull (row 10).
	Public bool
	// Challenges are the WWW-Authenticate headers of its 401s, in place of the usual one, in which
	// {scope} stands for what the request needs (rows 1 and 2).
	Challenges []string
	// Realm of the usual challenge: "https://auth.example/token" (row 11). Zero: "/token" (row 2).
	Realm string
	// DenyAll answers 401 to every token, good or not (row 6).
	DenyAll bool
	// MaxAuthorization is how long an Authorization header may be, in bytes; a longer one is answered
	// with 431 (row 7). Zero: without limit.
	MaxAuthorization int
	// DeleteAction wants the action "delete" for deletions (row 9). False: "push".
	DeleteAction bool
	// Echo repeats in a refusal's message which authorisation was shown.
	Echo bool

	// TokensAtEnd looks at the token of an upload's request once more when its body has come, and answers 401 if it has ended
	// (row 3). It keeps what came, unless DropRefused.
	TokensAtEnd bool
	DropRefused bool

	// RefuseMounts is the status for a mount (row 8): 401, 403, 404 or 405. Zero: it mounts.
	RefuseMounts int
	// HeadManifest is the status for HEAD of any manifest (row 9). Zero: as it should be.
	HeadManifest int
	// HeadAbsent is the status for HEAD of a manifest that is not there (row 9). Zero: 404.
	HeadAbsent int

	// BlobsAt redirects who wants a blob: the address of a [Storage], "https://cdn.example" (row 12).
	// Zero: it sends them itself.
	BlobsAt string
	// UploadsAt has uploads continued elsewhere: the address of a [Storage] (row 13). Zero: here.
	UploadsAt string
	// Absolute makes the Location of an upload a whole address (row 13). False: a path alone.
	Absolute bool
	// UploadQuery is in the Location of an upload, must come back as it is, and changes with each
	// answer by a "_state" that must be the newest one (row 13): "sig=a%2Fb". Zero: no query.
	UploadQuery string
	// PageSize of lists. Zero: the client's, or all.
	PageSize int
	// NextPageAt has the next page of a list elsewhere: "https://evil.example" (row 14). Zero: here.
	NextPageAt string

	// Header is in every answer: rate limits, for example (row 16).
	Header http.Header
	// PlainText makes the bodies of refusals plain text (row 16).
	PlainText bool
	// OneChunk answers PATCH with 201, and drops every chunk but the first (row 17).
	OneChunk bool
	// MinChunk is told to clients as OCI-Chunk-Min-Length, in bytes; after a shorter chunk there may
	// be no other (row 17). Zero: none.
	MinChunk int
	// HalfChunks is how many of the next chunks are taken by half, and then answered with 416 (row 17).
	HalfChunks int
	// ShortChunks is how many of the next chunks are taken by half, which only the Range of the answer tells (row 17).
	ShortChunks int
	// ChunkStatus is the answer to a chunk that was taken (row 17): 201. Zero: 202.
	ChunkStatus int
	// NoReferrers lacks the referrers API (row 21).
	NoReferrers bool
	// IgnoreConditions takes no notice of If-Match and If-None-Match (row 21).
	IgnoreConditions bool
	// Sparse takes manifests whose children are missing. False: it refuses them (row 22).
	Sparse bool
	// Before is called with each request before it is answered, and may alter the registry: what
	// somebody else does between two requests of a client (row 21). Nil: nothing happens.
	Before func(*http.Request)
	// Faults befall requests before anything else; of several that select a request the first does.
	Faults []*Fault
}

// Fault is what happens to some requests (rows 16, 18 and 23).
type Fault struct {
	// On selects requests; see [On]. It must not use the registry. Nil: all.
	On func(*http.Request) bool
	// Times is how many of them. Zero: all.
	Times int

	// Status answers in place of the registry: 429, 503.
	Status int
	// RetryAfter is a header of that answer: seconds or a date. Zero: none.
	RetryAfter string
	// Body is plain text, or JSON if it begins with a brace.
	Body string

	// Cut ends the connection, and Stall lets it stand until the client gives up or the registry is
	// closed, when After bytes of the request's body have arrived or, where that has none, of the
	// response's have been sent. What arrived of an upload is kept.
	Cut, Stall bool
	After      int64
	// Lose carries the request out, and ends the connection in place of the answer.
	Lose bool

	seen int
}

// On selects requests of a method whose path contains a text; "" is any.
func On(method, path string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return (method == "" || r.Method == method) && strings.Contains(r.URL.Path, path)
	}
}

// befalls finds the first fault that selects r, and counts it.
func befalls(faults []*Fault, r *http.Request) *Fault {
	for _, f := range faults {
		if f.On != nil && !f.On(r) || f.Times > 0 && f.seen >= f.Times {
			continue
		}
		f.seen++
		return f
	}
	return nil
}
