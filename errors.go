package berth

import "errors"

// Error is a failure that has a code of the OCI distribution specification ("Error Codes"), or one
// of ours where the specification has none. Two Errors are the same to [errors.Is] if their codes
// are, so an error that came over HTTP matches the sentinels of this package.
type Error struct {
	// Code is upper case letters and underscores: "BLOB_UNKNOWN".
	Code string
	// Message says what is wrong, for people. May be empty.
	Message string
	// Detail is what a remote registry sent along, as JSON. May be empty.
	Detail string
}

// Error returns the message, or the code where there is none.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Message
}

// Is reports whether target is an Error of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// The errors that a caller may branch on. Wrap them with the name of what they are about.
var (
	ErrBlobUnknown         = sentinel("BLOB_UNKNOWN", "blob unknown")
	ErrUploadInvalid       = sentinel("BLOB_UPLOAD_INVALID", "upload invalid")
	ErrUploadUnknown       = sentinel("BLOB_UPLOAD_UNKNOWN", "upload unknown")
	ErrDigestInvalid       = sentinel("DIGEST_INVALID", "digest invalid")
	ErrManifestBlobUnknown = sentinel("MANIFEST_BLOB_UNKNOWN", "manifest names content that is not in the repository")
	ErrManifestInvalid     = sentinel("MANIFEST_INVALID", "manifest invalid")
	ErrManifestUnknown     = sentinel("MANIFEST_UNKNOWN", "manifest unknown")
	ErrNameInvalid         = sentinel("NAME_INVALID", "repository name invalid")
	ErrNameUnknown         = sentinel("NAME_UNKNOWN", "repository unknown")
	ErrSizeInvalid         = sentinel("SIZE_INVALID", "size invalid")
	ErrTagInvalid          = sentinel("TAG_INVALID", "tag invalid")
	ErrUnauthorized        = sentinel("UNAUTHORIZED", "authentication required")
	ErrDenied              = sentinel("DENIED", "access denied")
	ErrUnsupported         = sentinel("UNSUPPORTED", "operation not supported")
	ErrTooManyRequests     = sentinel("TOOMANYREQUESTS", "too many requests")

	// ErrPreconditionFailed: a tag does not point where IfMatch or IfNoneMatch said it must.
	// Over HTTP this is status 412 (RFC 9110, 15.5.13).
	ErrPreconditionFailed = sentinel("PRECONDITION_FAILED", "tag points elsewhere")

	// ErrRangeInvalid: bytes were offered or asked for that do not follow on what is there.
	// Over HTTP this is status 416.
	ErrRangeInvalid = sentinel("RANGE_INVALID", "range invalid")

	// ErrLayoutInUse: another process owns the layout directory.
	ErrLayoutInUse = sentinel("LAYOUT_IN_USE", "layout in use by another process")

	// ErrLayoutInvalid: a directory that should be an OCI image layout is not one, or what it
	// names is missing or damaged.
	ErrLayoutInvalid = sentinel("LAYOUT_INVALID", "not an OCI image layout")

	// ErrEventsLost: what followed a position of [Watcher] is not kept any more.
	ErrEventsLost = sentinel("EVENTS_LOST", "events are not kept any more")

	// ErrMounted is no failure: NewUpload has mounted the blob, and there is nothing to upload.
	ErrMounted = errors.New("blob mounted, nothing to upload")
)

func sentinel(code, message string) error { return &Error{Code: code, Message: message} }

// Code returns the code of the first Error that err wraps, or "" where there is none.
func Code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
